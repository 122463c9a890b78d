"""The interface of a wire: everything that a client needs to know of an API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gprochat_anyio._errors import SiteError

from .messages import Message
from .usage import Usage


class ReplyDecoder(Protocol):
    """Incremental decoder of one reply."""

    failure: str | SiteError | None
    """The reason why the reply is broken, or the error that it tells of. Whatever is fed afterwards
    is dropped."""
    finish_reason: str | None
    """`"stop"`, `"length"` or another of the API's words; None if it is not known (yet)."""
    usage: Usage | None
    """The tokens, once the API has counted them."""
    is_whole: bool
    """True once the reply is complete, whatever happens to the connection afterwards. What the body
    still holds, such as the usage, may be fed."""

    def feed(self, data: bytes) -> str:
        """Return the text that these bytes complete, possibly none."""
        ...

    def finish(self) -> str:
        """Return the rest of the text of a complete body, or set `failure`."""
        ...

    def cut(self) -> str:
        """Return the rest of the text that is certain, of a body that broke off."""
        ...


class Wire(Protocol):
    """An API: its requests, its replies and its errors."""

    @property
    def peer(self) -> str:
        """The server's name in error messages, such as "the site"."""
        ...

    @property
    def path(self) -> str:
        """The path below the base URL, with its query."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields of a request, the key included."""
        ...

    def encode(self, messages: Sequence[Message]) -> bytes:
        """Return the body of a request.

        :param messages: may begin with one of the system; then user and model alternate, and the
            last is the user's
        """
        ...

    def decoder(self, max_size: int | None) -> ReplyDecoder:
        """Return a fresh decoder for the body of one reply.

        :param max_size: Maximum size of its text in bytes, `None` for no limit.
        """
        ...

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return the error that the head of a response shows, if it shows one.

        A status other than 200 gives None if the body should say more: pass it to `read_error`.

        :param headers: by lower-case name
        :param framed: True if the end of the body differs from a broken connection
        """
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for.

        :param headers: by lower-case name
        """
        ...
