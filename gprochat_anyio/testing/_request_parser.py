"""Parser of a client's requests."""

from __future__ import annotations

from collections.abc import Callable

import httptools


class RequestParser:
    """Incremental parser of a client's requests.

    :param on_request: Called with the path, the header fields by lower-case name, and the body.
    """

    def __init__(self, on_request: Callable[[str, dict[str, str], bytes], None]) -> None:
        self._on_request = on_request
        self._begin()
        self._parser = httptools.HttpRequestParser(self)
        self._whole: list[tuple[str, dict[str, str], bytes]] = []

    def feed(self, data: bytes) -> None:
        """Parse data, and call `on_request` for each request that it completes.

        :raises httptools.HttpParserError: If the data is not an HTTP/1.1 request.
        :raises httptools.HttpParserUpgrade: If a request asks for another protocol.
        """
        self._parser.feed_data(data)
        whole, self._whole = self._whole, []
        for request in whole:  # not within the parser, which would hide exceptions
            self._on_request(*request)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = httptools.parse_url(self._url).path or b"/"
        self._whole.append((path.decode("latin-1"), self._headers, bytes(self._body)))
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
