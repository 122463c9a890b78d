"""`gprochat ask`: one prompt, and its reply as it arrives."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import anyio
import click
from anyio import to_thread

from gprochat_anyio import Client, Fleet, GPROChatError, ReplyStream, Timing

from ._exits import EPILOG, FAILED, exit_status, say
from ._inside import opened_client
from ._model import model_name_option, model_option
from ._output import Output, PipeClosedError, json_line
from ._prompt import read_prompt
from ._sites import Site, one_site, site_option


@click.command(epilog=EPILOG, short_help="Ask one prompt, and stream the reply.")
@click.argument("prompt", required=False)
@site_option()
@click.option("--url", "--base-url", "url", metavar="URL", help="The site; or set GPROCHAT_URL.")
@model_option
@model_name_option
@click.option("--secret-key", metavar="KEY", help="Signs requests; or set GPROCHAT_SECRET_KEY.")
@click.option("--password", metavar="WORD", help="The site's; or set GPROCHAT_PASSWORD.")
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
    backend: str,
    as_json: bool,
    stats: bool,
    **_: Any,
) -> None:
    """Stream the reply to PROMPT: the argument, stdin, or both joined."""
    site = one_site(ctx)
    try:
        answering = _PromptRun(read_prompt(prompt), site, as_json=as_json, stats=stats)
        ctx.exit(anyio.run(answering.run, backend=backend))
    except (ImportError, OSError) as error:  # no embedded site; stdin, stdout, no free port
        say(getattr(error, "strerror", None) or str(error))
        ctx.exit(FAILED)


class _PromptRun:
    """One prompt on its way; `run` returns the exit status."""

    def __init__(self, prompt: str, site: Site, *, as_json: bool, stats: bool) -> None:
        self._prompt = prompt
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
            say(self._site.words_of(self._failure))
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
