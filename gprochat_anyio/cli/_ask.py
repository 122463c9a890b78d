"""`gprochat ask`: one prompt, and its reply as it arrives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, Final

import anyio
import click
from anyio import to_thread

from gprochat_anyio import Client, Fleet, GPROChatError, Message, ReplyStream

from ._config import read_config
from ._database import StoreError, store_path
from ._exit_codes import EXIT_STATUSES, FAILED, exit_status, say, with_options
from ._inside import opened_client
from ._options import (
    FURTHER,
    backend_option,
    base_url_option,
    hidden_help_option,
    hidden_proxy_option,
    model_name_option,
    model_option,
    password_option,
    secret_key_option,
    site_option,
    timeout_options,
    url_option,
)
from ._output import Output, PipeClosedError, json_line
from ._prompt import read_prompt
from ._site import Site
from ._sites import one_site
from ._store import Kept, LoggedTurn, Store

_EPILOG: Final = f"\b\n{FURTHER}\n{EXIT_STATUSES}"


@click.command(epilog=_EPILOG, short_help="Ask one prompt, and stream the reply.")
@click.argument("words", metavar="[PROMPT]", nargs=-1)
@site_option()
@url_option("Ask this site (or set GPROCHAT_URL).")
@model_option()
@model_name_option
@base_url_option
@secret_key_option
@password_option
@hidden_proxy_option
@backend_option
@timeout_options
@click.option("--system", metavar="TEXT", help="Instructions that go before the prompt.")
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    multiple=True,
    help="Put this file before the prompt. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not the text.")
@click.option("--stats", is_flag=True, help="Print timing and usage on stderr at the end.")
@click.option("--no-log", is_flag=True, help="Do not keep this in the log.")
@hidden_help_option
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    *,
    words: Sequence[str],
    backend: str,
    system: str | None,
    files: Sequence[str],
    as_json: bool,
    stats: bool,
    no_log: bool,
    **_: Any,
) -> None:
    """Stream the reply to PROMPT: the argument, stdin (-), or both joined."""
    if len(words) > 1:
        raise click.UsageError(
            'the prompt must be one argument: put it in quotes, gprochat ask "Why is it so?"'
        )
    config = None if no_log else read_config()  # which may say `log = false`
    site = one_site(ctx, config)
    try:
        text = read_prompt(words[0] if words else None, files)
        answering = _PromptRun(text, system, site, as_json=as_json, stats=stats)
        status = anyio.run(answering.run, backend=backend)
        if config is not None and config.log:
            _keep(answering.kept)
        ctx.exit(status)
    except (ImportError, OSError) as error:  # no embedded site; stdin, stdout
        say(getattr(error, "strerror", None) or str(error))
        ctx.exit(FAILED)


def _keep(kept: Kept | None) -> None:
    """Append a turn to the log. A failure is reported, and does not change the exit status."""
    if kept is None:
        return
    try:
        with closing(Store(store_path(), command="ask")) as store:
            store.save([kept])
    except StoreError as error:
        say(f"this reply is not in the log: {error}")


class _PromptRun:
    """The request of one prompt, and its output."""

    def __init__(
        self, prompt: str, system: str | None, site: Site, *, as_json: bool, stats: bool
    ) -> None:
        self._prompt = prompt
        self._system = system
        self._site = site
        self._as_json = as_json
        self._stats = stats
        self._asked = time.time()
        self._output = Output()
        self._chunks: ReplyStream | None = None
        self._ended = False
        self._failure: Exception | None = None

    async def run(self) -> int:
        """Ask the prompt, write the reply and the messages, and return the exit status."""
        try:
            try:
                async with opened_client(self._site) as client:
                    await self._stream(client)
                self._ended = True
            except (GPROChatError, ValueError) as error:
                self._failure = error
            await self._report()
        except PipeClosedError:
            return 0  # the reader has what it wanted, as with `| head`
        return 0 if self._failure is None else exit_status(self._failure)

    @property
    def kept(self) -> Kept | None:
        """The turn for the log. None if no text arrived."""
        chunks, site = self._chunks, self._site
        if chunks is None or not chunks.text:
            return None
        turn = LoggedTurn(
            self._prompt,
            chunks.text,
            site.name,
            site.url,
            self._asked,
            self._ended,
            chunks.timing.first_chunk,
            chunks.timing.total,
            site.model,
            self._system,
        )
        return Kept(site.name, site.url, self._system, (turn,), site.model)

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
        """Write in a thread. A slow reader of stdout must not block the event loop."""
        await to_thread.run_sync(self._output.write, text)

    async def _report(self) -> None:
        chunks = self._chunks
        if self._as_json:
            await self._write(_as_json(chunks, self._failure))
        elif chunks is not None and chunks.text:
            await to_thread.run_sync(self._output.end_line)
        if self._failure is not None:
            say(with_options(self._site.words_of(self._failure)))
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
