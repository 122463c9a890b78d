"""The interface of a wire: one API's requests, and the meaning of its responses. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gprochat_anyio._errors import SiteError

from .messages import Message
from .usage import Usage


class ReplyDecoder(Protocol):
    """Decodes the body of one reply, in pieces of any size."""

    @property
    def failure(self) -> str | SiteError | None:
        """The reason why the reply broke off, or the error that it tells of. Whatever is fed
        afterwards is dropped."""
        ...

    @property
    def finish_reason(self) -> str | None:
        """The reason why the reply ended: `"stop"`, `"length"`, or another of the API's words."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The tokens that the reply took, as far as the API says."""
        ...

    @property
    def is_whole(self) -> bool:
        """True once all text has come, whatever happens to the connection afterwards."""
        ...

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes complete, possibly none."""
        ...

    def finish(self) -> str:
        """Return the rest of the text of a complete body, or set `failure`."""
        ...

    def cut(self) -> str:
        """Return the rest of the text of a body that broke off, as far as it is certain."""
        ...


class Wire(Protocol):
    """One API."""

    @property
    def provider(self) -> str:
        """The API's name in the terms of OpenTelemetry's `gen_ai.provider.name`."""
        ...

    @property
    def path(self) -> str:
        """The path of requests, below the API's address."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields of every request that are the API's own."""
        ...

    def encode(self, messages: Sequence[Message]) -> Any:
        """Return the body of a request: bytes, or what a model in this process is given.

        :param messages: as `messages.history` returns them
        """
        ...

    def decoder(self, max_size: int | None) -> ReplyDecoder:
        """Return the decoder of a reply.

        :param max_size: Maximum size of the body in bytes, None for no limit.
        """
        ...

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return the error that the head of a response shows, if it shows one.

        A status other than 200 gives None if the body should say more: pass it to `read_error`.
        All wires of a class find an error in the same heads.

        :param headers: by lower-case name
        :param framed: True if the end of the body differs from a broken connection
        """
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for.

        :param headers: by lower-case name
        """
        ...
