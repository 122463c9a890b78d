"""`gprochat ask`: one prompt, and its reply as it arrives."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from secrets import token_urlsafe
from typing import Any, Final, NamedTuple

import anyio
import click
from anyio import to_thread
from click.core import ParameterSource

from gprochat_anyio._client import Client
from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._reply import Timing
from gprochat_anyio._stream import ReplyStream
from gprochat_anyio._timeouts import Timeouts

from ._exits import EPILOG, FAILED, USAGE, exit_status, say
from ._model import IN_PROCESS, OFFLINE, model_name_option, opened
from ._output import Output, PipeClosedError, json_line
from ._prompt import read_prompt
from ._sites import overlay, site_option

_CLOCKS: Final = ("connect", "first_chunk", "idle", "total")


@click.command(epilog=EPILOG)
@click.argument("prompt", required=False)
@site_option()
@click.option(
    "--url",
    "--base-url",
    "url",
    metavar="URL",
    envvar="GPROCHAT_URL",
    help="The site; or set GPROCHAT_URL.",
)
@click.option(
    "--model",
    metavar="KIND",
    type=click.Choice(IN_PROCESS),
    help="No site: offline, echo, gemini, openai.",
)
@model_name_option
@click.option(
    "--secret-key",
    metavar="KEY",
    envvar="GPROCHAT_SECRET_KEY",
    help="Signs requests; or set GPROCHAT_SECRET_KEY.",
)
@click.option(
    "--password",
    metavar="WORD",
    envvar="GPROCHAT_PASSWORD",
    help="The site's; or set GPROCHAT_PASSWORD.",
)
@click.option("--proxy", metavar="URL", help="http://, https:// or socks5://")
# Trio's name lookups can be cancelled, so timeouts end the command even when DNS hangs.
@click.option(
    "--backend", type=click.Choice(["asyncio", "trio"]), default="trio", show_default=True
)
@click.option("--timeout-connect", metavar="SECONDS", type=float, help="To connect.")
@click.option("--timeout-first-chunk", metavar="SECONDS", type=float, help="To the first text.")
@click.option("--timeout-idle", metavar="SECONDS", type=float, help="Between texts.")
@click.option("--timeout-total", metavar="SECONDS", type=float, help="To the end.  inf: no limit")
@click.option("--json", "as_json", is_flag=True, help="One object: text, timing, error.")
@click.option("--stats", is_flag=True, help="Timing on stderr at the end.")
@click.help_option("--help", hidden=True)  # whoever sees the screen that this fills knows it
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    *,
    prompt: str | None,
    url: str | None,
    model: str | None,
    model_name: str | None,
    backend: str,
    **options: Any,
) -> None:
    """Stream the reply to PROMPT: the argument, stdin, or both joined."""
    inside: _Inside | None = None
    named = options.pop("site")
    if model is None:
        options |= overlay(ctx)
        url = options.pop("url")
    elif named is not None:
        raise click.UsageError("--model asks no site: give --model or --site.")
    if model is not None:
        if ctx.get_parameter_source("url") is not ParameterSource.COMMANDLINE:
            url = None  # the environment's is a site's
        inside = _Inside(model, model_name, url, options["proxy"])
        options["proxy"] = None
    elif model_name is not None:
        raise click.UsageError("--model-name needs its --model: gemini or openai.")
    elif not url:
        if options["proxy"]:
            raise click.UsageError("--proxy needs a site: give --url, or set GPROCHAT_URL.")
        inside = _Inside(OFFLINE)
        options["note"] = "no --url or GPROCHAT_URL: the embedded site answers, offline"
    try:
        answering = _Asking(read_prompt(prompt), inside or url or "", **options)
        ctx.exit(anyio.run(answering.run, backend=backend))
    except (ImportError, OSError) as error:  # no embedded site; stdin, stdout, no free port
        say(getattr(error, "strerror", None) or str(error))
        ctx.exit(FAILED)
    except ValueError as error:  # of a model
        say(str(error))
        ctx.exit(USAGE)


class _Inside(NamedTuple):
    """A model to ask by a site inside this process."""

    kind: str
    name: str | None = None
    url: str | None = None
    proxy: str | None = None


class _Asking:
    """One prompt on its way; `run` returns the exit status.

    :param note: to say before the reply
    """

    def __init__(
        self,
        prompt: str,
        asked: str | _Inside,
        *,
        secret_key: str | None,
        password: str | None,
        proxy: str | None,
        as_json: bool,
        stats: bool,
        note: str | None = None,
        **timeouts: float | None,
    ) -> None:
        self._prompt = prompt
        self._asked = asked
        self._note = note
        self._secret_key = secret_key or ""
        self._password = password
        self._proxy = proxy
        self._as_json = as_json
        self._stats = stats
        limits = {clock: timeouts[f"timeout_{clock}"] for clock in _CLOCKS}
        self._limits = {clock: limit for clock, limit in limits.items() if limit is not None}
        self._output = Output()
        self._chunks: ReplyStream | None = None
        self._failure: Exception | None = None

    async def run(self) -> int:
        """The exit status, once all that is to be said has been said."""
        try:
            if isinstance(self._asked, str):
                await self._ask(self._asked, trust_env=True)
            else:
                await self._ask_inside(self._asked)
        except PipeClosedError:
            return 0  # the reader has what it wanted, as with `| head`
        return 0 if self._failure is None else exit_status(self._failure)

    async def _ask_inside(self, asked: _Inside) -> None:
        from gprochat_anyio.site import serve  # noqa: PLC0415 - 100 ms

        # Others on this machine could otherwise use the model, too.
        self._secret_key = self._secret_key or token_urlsafe()
        passwords = () if self._password is None else (self._password,)
        left: Exception | None = None
        async with opened(*asked) as model, anyio.create_task_group() as tg:
            try:
                url = await tg.start(
                    partial(
                        serve,
                        app_or_model=model,
                        secret_key=self._secret_key,
                        passwords=passwords,
                    )
                )
                if self._note is not None:
                    say(self._note)
                await self._ask(url, trust_env=False)
            except (OSError, PipeClosedError) as error:
                left = error  # bare; the task group would wrap it
            tg.cancel_scope.cancel()
        if left is not None:
            raise left

    async def _ask(self, url: str, *, trust_env: bool) -> None:
        try:
            client = Client(
                url,
                secret_key=self._secret_key,
                password=self._password,
                timeouts=Timeouts(**self._limits),
                proxy=self._proxy,
                trust_env=trust_env,
            )
            async with client:
                await self._stream(client)
        except (GPROChatError, ValueError) as error:
            self._failure = error
        await self._report()

    async def _stream(self, client: Client) -> None:
        async with client.stream(self._prompt) as chunks:
            self._chunks = chunks
            async for chunk in chunks:
                if not self._as_json:
                    await self._write(chunk)

    async def _write(self, text: str) -> None:
        """In a thread: a slow reader of stdout must not stop the event loop's clocks."""
        await to_thread.run_sync(self._output.write, text)

    async def _report(self) -> None:
        text = "" if self._chunks is None else self._chunks.text
        timing = None if self._chunks is None else self._chunks.timing
        if self._as_json:
            await self._write(_as_json(text, timing, self._failure))
        elif text:
            await to_thread.run_sync(self._output.end_line)
        if self._failure is not None:
            own_words = getattr(self._failure, "site_message", None)  # a model's, without a site
            say(own_words if isinstance(self._asked, _Inside) and own_words else str(self._failure))
        if self._stats and timing is not None:
            say(
                f"connected in {timing.connect:.3f} s, first text after {timing.first_chunk:.3f} s,"
                f" {timing.total:.3f} s in all; {timing.characters} characters in {timing.chunks}"
                f" pieces; attempts: {timing.attempts}"
            )


def _as_json(text: str, timing: Timing | None, failure: Exception | None) -> str:
    answer = {
        "text": text,
        "timing": None if timing is None else asdict(timing),
        "error": failure and {"type": type(failure).__name__, "message": str(failure)},
    }
    return json_line(answer)
