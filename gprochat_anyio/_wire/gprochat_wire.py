"""The client's end of GPROChat's API: signed requests, and replies that are plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gprochat_anyio._errors import InvalidPromptError, SiteError

from .error_responses import check_head, check_reply_head, read_error
from .gprochat import GENERATE_PATH, REQUEST_CONTENT_TYPE, encode_generate
from .messages import Message, refused_fields
from .reply_decoder import TextDecoder


class GPROChatWire:
    """The API of a GPROChat site.

    :param secret_key: The key that signs requests.
    :param password: The site's password, if it has one.
    :param failure_marker: Treat a reply that ends with `Internal server error` as failed.
    """

    provider = "gprochat"
    path = GENERATE_PATH
    headers: Mapping[str, str] = {"Accept": "*/*", "Content-Type": REQUEST_CONTENT_TYPE}

    def __init__(self, *, secret_key: str, password: str | None, failure_marker: bool) -> None:
        self.password = password
        self._secret_key = secret_key
        self._failure_marker = failure_marker

    def encode(self, messages: Sequence[Message]) -> bytes:
        """Encode the body of a request, signed with the current time."""
        return encode_generate(messages, secret_key=self._secret_key, password=self.password)

    def with_fields(self, fields: Mapping[str, Any]) -> InvalidPromptError:
        """Return an error, because the API has no additional fields."""
        return refused_fields(fields)

    def decoder(self, max_size: int | None) -> TextDecoder:
        """Return a new decoder for one reply."""
        return TextDecoder(failure_marker=self._failure_marker, max_size=max_size)

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return the error that a response's head indicates, or `None`."""
        return check_reply_head(status, headers, framed=framed)

    def check_head(self, status: int, headers: Mapping[str, str]) -> SiteError | None:
        """Return the error that the head of any response indicates, or `None`."""
        return check_head(status, headers)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200."""
        return read_error(status, headers, body)
