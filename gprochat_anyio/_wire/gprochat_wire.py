"""GPROChat's API as the client uses it: a signed request, answered with the text itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gprochat_anyio._errors import SiteError

from .error_responses import check_reply_head, read_error
from .gprochat import GENERATE_PATH, REQUEST_CONTENT_TYPE, encode_generate
from .messages import Message
from .reply_decoder import TextDecoder


class GPROChatWire:
    """The API of a GPROChat site.

    :param secret_key: signs the requests
    :param password: of the site, if it has one
    :param failure_marker: True if a reply that ends with `Internal server error` has failed
    """

    provider = "gprochat"
    path = GENERATE_PATH
    headers: Mapping[str, str] = {"Accept": "*/*", "Content-Type": REQUEST_CONTENT_TYPE}

    def __init__(self, *, secret_key: str, password: str | None, failure_marker: bool) -> None:
        self.password = password
        self._secret_key = secret_key
        self._failure_marker = failure_marker

    def encode(self, messages: Sequence[Message]) -> bytes:
        """Encode and sign the body of a request, at this moment."""
        return encode_generate(messages, secret_key=self._secret_key, password=self.password)

    def decoder(self, max_size: int | None) -> TextDecoder:
        """Return the decoder of a reply."""
        return TextDecoder(failure_marker=self._failure_marker, max_size=max_size)

    def check_reply_head(
        self, status: int, headers: Mapping[str, str], *, framed: bool
    ) -> SiteError | None:
        """Return the error that the head of a response shows, if it shows one."""
        return check_reply_head(status, headers, framed=framed)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for."""
        return read_error(status, headers, body)
