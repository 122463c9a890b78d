"""`gprochat ask`: one prompt, and its reply as it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import anyio
import click
from anyio import to_thread

from gprochat_anyio import Client, Fleet, GPROChatError, Message, ReplyStream

from ._exits import EXIT_STATUSES, FAILED, exit_status, say
from ._inside import opened_client
from ._options import model_name_option, model_option, site_option
from ._output import Output, PipeClosedError, json_line
from ._prompt import read_prompt
from ._site import Site
from ._sites import one_site

_EPILOG: Final = f"""\b
Limits in SECONDS, or inf: --timeout-connect, --timeout-first-chunk (to the
first text), --timeout-idle (between texts), --timeout-total.
{EXIT_STATUSES}"""

_seconds = partial(click.option, metavar="SECONDS", type=float, hidden=True)


@click.command(epilog=_EPILOG, short_help="Ask one prompt, and stream the reply.")
@click.argument("prompt", required=False)
@site_option()
@click.option("--url", "--base-url", "url", metavar="URL", help="The site; or set GPROCHAT_URL.")
@model_option()
@model_name_option
@click.option("--secret-key", metavar="KEY", help="Signs requests; or set GPROCHAT_SECRET_KEY.")
@click.option("--password", metavar="WORD", help="The site's; or set GPROCHAT_PASSWORD.")
@click.option("--proxy", metavar="URL", help="http://, https:// or socks5://")
# Trio's name lookups can be cancelled, so timeouts end the command even when DNS hangs.
@click.option(
    "--backend", type=click.Choice(["asyncio", "trio"]), default="trio", show_default=True
)
@_seconds("--timeout-connect")
@_seconds("--timeout-first-chunk")
@_seconds("--timeout-idle")
@_seconds("--timeout-total")
@click.option("--system", metavar="TEXT", help="Instructions, before the prompt.")
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    multiple=True,
    help="A text before the prompt; repeatable; - is stdin.",
)
@click.option("--json", "as_json", is_flag=True, help="One object: text, timing, usage, error.")
@click.option("--stats", is_flag=True, help="Timing and usage on stderr at the end.")
@click.help_option("--help", hidden=True)  # whoever sees the screen that this fills knows it
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    *,
    prompt: str | None,
    backend: str,
    system: str | None,
    files: Sequence[str],
    as_json: bool,
    stats: bool,
    **_: Any,
) -> None:
    """Stream the reply to PROMPT: the argument, stdin, or both joined."""
    site = one_site(ctx)
    try:
        text = read_prompt(prompt, files)
        answering = _PromptRun(text, system, site, as_json=as_json, stats=stats)
        ctx.exit(anyio.run(answering.run, backend=backend))
    except (ImportError, OSError) as error:  # no embedded site; stdin, stdout
        say(getattr(error, "strerror", None) or str(error))
        ctx.exit(FAILED)


class _PromptRun:
    """One prompt on its way; `run` returns the exit status."""

    def __init__(
        self, prompt: str, system: str | None, site: Site, *, as_json: bool, stats: bool
    ) -> None:
        self._prompt = prompt
        self._system = system
        self._site = site
        self._as_json = as_json
        self._stats = stats
        self._output = Output()
        self._chunks: ReplyStream | None = None
        self._failure: Exception | None = None

    async def run(self) -> int:
        """The exit status, once all that is to be said has been said."""
        try:
            try:
                async with opened_client(self._site) as client:
                    await self._stream(client)
            except (GPROChatError, ValueError) as error:
                self._failure = error
            await self._report()
        except PipeClosedError:
            return 0  # the reader has what it wanted, as with `| head`
        return 0 if self._failure is None else exit_status(self._failure)

    async def _stream(self, client: Client | Fleet) -> None:
        prompt: str | list[Message] = self._prompt
        if self._system:
            prompt = [Message("system", self._system), Message("user", self._prompt)]
        async with client.stream(prompt) as chunks:
            self._chunks = chunks
            async for chunk in chunks:
                if not self._as_json:
                    await self._write(chunk)

    async def _write(self, text: str) -> None:
        """In a thread: a slow reader of stdout must not stop the event loop's clocks."""
        await to_thread.run_sync(self._output.write, text)

    async def _report(self) -> None:
        chunks = self._chunks
        if self._as_json:
            await self._write(_as_json(chunks, self._failure))
        elif chunks is not None and chunks.text:
            await to_thread.run_sync(self._output.end_line)
        if self._failure is not None:
            say(self._site.words_of(self._failure))
        if chunks is None:
            return
        if chunks.finish_reason == "length":
            say("the reply is cut off: the model has reached its limit of tokens")
        if self._stats:
            say(_stats(chunks))


def _stats(chunks: ReplyStream) -> str:
    timing, reason, usage = chunks.timing, chunks.finish_reason, chunks.usage
    waits = f"connected in {timing.connect:.3f} s, first text after {timing.first_chunk:.3f} s"
    facts = [
        f"{waits}, {timing.total:.3f} s in all",
        f"{timing.characters} characters in {timing.chunks} pieces",
        f"attempts: {timing.attempts}",
    ]
    if usage is not None:
        facts.append(f"tokens: {usage.input_tokens} in, {usage.output_tokens} out")
    if reason is not None:
        facts.append(f"finish reason: {reason}")
    return "; ".join(facts)


def _as_json(chunks: ReplyStream | None, failure: Exception | None) -> str:
    usage = chunks and chunks.usage
    answer = {
        "text": "" if chunks is None else chunks.text,
        "finish_reason": chunks and chunks.finish_reason,
        "usage": usage and asdict(usage),
        "timing": chunks and asdict(chunks.timing),
        "error": failure and {"type": type(failure).__name__, "message": str(failure)},
    }
    return json_line(answer)
