"""`gprochat ask`: one prompt, and its reply as it arrives."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import anyio
import click
from anyio import to_thread

from gprochat_anyio._client import Client
from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._reply import Timing
from gprochat_anyio._stream import ReplyStream
from gprochat_anyio._timeouts import Timeouts

from ._exits import EPILOG, FAILED, exit_status, say
from ._output import Output, PipeClosedError
from ._prompt import read_prompt

_CLOCKS: Final = ("connect", "first_chunk", "idle", "total")
_UNESCAPED: Final = re.compile(r"[\x7f-\x9f]")  # control characters that JSON leaves as they are


@click.command(epilog=EPILOG)
@click.argument("prompt", required=False)
@click.option("--url", envvar="GPROCHAT_URL", help="The site; or set GPROCHAT_URL.")
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
@click.pass_context
def ask(
    ctx: click.Context, /, *, prompt: str | None, url: str | None, backend: str, **options: Any
) -> None:
    """Stream the reply to PROMPT: the argument, stdin, or both joined.

    Without a URL a site inside this process answers, offline.
    """
    if options["proxy"] and not url:
        raise click.UsageError("--proxy needs a site: give --url, or set GPROCHAT_URL.")
    try:
        answering = _Asking(read_prompt(prompt), url or None, **options)
        ctx.exit(anyio.run(answering.run, backend=backend))
    except (ImportError, OSError) as error:  # no embedded site; stdin, stdout, no free port
        say(getattr(error, "strerror", None) or str(error))
        ctx.exit(FAILED)


class _Asking:
    """One prompt on its way; `run` returns the exit status."""

    def __init__(
        self,
        prompt: str,
        url: str | None,
        *,
        secret_key: str | None,
        password: str | None,
        proxy: str | None,
        as_json: bool,
        stats: bool,
        **timeouts: float | None,
    ) -> None:
        self._prompt = prompt
        self._url = url
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
            if self._url is None:
                await self._ask_embedded_site()
            else:
                await self._ask(self._url, trust_env=True)
        except PipeClosedError:
            return 0  # the reader has what it wanted, as with `| head`
        return 0 if self._failure is None else exit_status(self._failure)

    async def _ask_embedded_site(self) -> None:
        from gprochat_anyio.site import serve  # noqa: PLC0415 - 100 ms

        passwords = () if self._password is None else (self._password,)
        left: Exception | None = None
        async with anyio.create_task_group() as tg:
            try:
                url = await tg.start(
                    partial(serve, secret_key=self._secret_key, passwords=passwords)
                )
                say("no --url or GPROCHAT_URL: the embedded site answers, offline")
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
            say(str(self._failure))
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
    line = json.dumps(answer, ensure_ascii=False)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"
