"""A model's HTTP API: a request, and the texts in the server-sent events of its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import quote

import anyio
from httpx_sse import EventSource

from gprochat_anyio import Timeouts, __version__
from gprochat_anyio.site import ModelError
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._http_library import httpx
from gprochat_anyio.transport._target import Proxy, ascii_host, environment_proxy, split_url

from ._api_answers import Reader, api_error, error_in, loads, shown, status_of
from ._body import DecodedBody, read_some
from ._clocks import Clocks

DEFAULT_TIMEOUTS = Timeouts(connect=10, first_chunk=300, idle=120, total=None)


class Api:
    """The API of a model.

    A request has a connection of its own: no other one's end can come in its way, and nothing is
    left to close when it is over.

    :param name: what to call it in errors
    :param url: its address
    :param api_key: is kept out of errors, whatever the server says
    :param key_header: the header field that carries the key
    :param key_variable: what sets the key
    :param timeouts: `first_chunk` starts with the request, and includes `connect`
    :param proxy: the URL of a proxy, in place of the environment's
    :raises ValueError: that names the argument, for a setting that can not be
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_key: str | None,
        key_header: tuple[str, str] | None,
        key_variable: str,
        timeouts: Timeouts | None,
        proxy: str | None,
    ) -> None:
        parts, port = split_url("base_url", url, ("http", "https"))
        if parts.username is not None or parts.password is not None:
            raise ValueError("base_url must not hold credentials; the key goes into a header")
        if parts.query or parts.fragment:
            raise ValueError("base_url must not have a query or a fragment")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError(f"the API key in {key_variable} has a character that no key has")
        host = ascii_host("base_url", parts.hostname or "")
        self._proxy = proxy or _url_of(environment_proxy(parts.scheme, host, port))
        if proxy is not None:
            Proxy.from_url(proxy)  # says what is wrong with it
        self.url = url.rstrip("/")
        """The address, without a slash at the end."""
        self._name = name
        self._key = api_key
        self._key_variable = key_variable
        self._timeouts = DEFAULT_TIMEOUTS.under(timeouts)
        self._headers = dict([key_header] if key_header else [])

    async def texts(
        self, path: str, body: Mapping[str, Any], reader: Reader
    ) -> AsyncGenerator[str]:
        """The texts of the answer to a request, and at its end why it ended.

        Cancelled or closed at any point, it closes the connection first.

        :raises ModelError: if there is no complete answer
        """
        clocks = Clocks(self._timeouts, anyio.current_time())
        transport = AnyIOTransport(proxy=self._proxy)
        try:
            response: httpx.Response | None = None
            with clocks.enforced("first_chunk"):
                response = await self._send(transport, path, body)
            if response is None:
                raise self._timed_out(clocks)
            try:
                async with aclosing(self._events(response, reader, clocks)) as texts:
                    async for text in texts:
                        yield text
            finally:
                await response.aclose()
        finally:
            await transport.aclose()
        yield reader.finish()

    async def _events(
        self, response: httpx.Response, reader: Reader, clocks: Clocks
    ) -> AsyncGenerator[str]:
        # The library only looks at these two, and would leave httpx's own iterators unclosed.
        source = EventSource(cast("httpx.Response", DecodedBody(response)))
        async with aclosing(source.aiter_sse()) as events:
            while True:
                event: tuple[str, str] | None = None
                with clocks.enforced_again() as scope:
                    event = await self._next(events)
                if scope.cancelled_caught:
                    raise self._timed_out(clocks)
                if event is None:
                    return
                kind, data = event
                if data == "[DONE]":
                    return
                if text := self._read(kind, data, reader):
                    yield text
                    clocks.enforced("idle")

    async def _next(self, events: AsyncGenerator[Any]) -> tuple[str, str] | None:
        try:
            async for event in events:
                if event.data:
                    return event.event, event.data
        except (httpx.TransportError, ValueError) as error:
            failure = error
        else:
            return None
        raise ModelError(f"The model's answer broke off{shown(str(failure))}")

    def _read(self, kind: str, data: str, reader: Reader) -> str:
        value = loads(data)
        if kind == "error" and not error_in(value):
            value = {"error": value if value is not None else data}
        if error := error_in(value):
            raise self._error(status_of(error), error, {})
        if not isinstance(value, dict):
            raise ModelError(f"The answer of {self._name} can not be read: an event is no JSON.")
        return reader.feed(value)

    async def _send(
        self, transport: AnyIOTransport, path: str, body: Mapping[str, Any]
    ) -> httpx.Response:
        """The answer, whose head has come and says that it is one of events."""
        request = httpx.Request(
            "POST",
            self.url + path,
            headers={
                **self._headers,
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Connection": "close",
                "Content-Type": "application/json",
                "User-Agent": f"gprochat-anyio/{__version__}",
            },
            content=json.dumps(body, ensure_ascii=False).encode(),
            extensions={"timeout": {"connect": self._timeouts.connect}},
        )
        try:
            response = await transport.handle_async_request(request)
        except httpx.TransportError as error:
            status = 504 if isinstance(error, httpx.TimeoutException) else 503
            failure = ModelError(
                f"{self._name} can not be reached at {self.url}{shown(str(error))}", status=status
            )
        else:
            try:
                refused = await self._refusal(response)
            except BaseException:
                await response.aclose()
                raise
            if refused is None:
                return response
            await response.aclose()
            failure = refused
        raise failure

    async def _refusal(self, response: httpx.Response) -> ModelError | None:
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if 300 <= status < 400:
            return ModelError(f"{self._name} answered with a redirect; check its URL, {self.url}")
        if status != 200:
            said = loads(await read_some(response))
            error = error_in(said) or (said if isinstance(said, dict) else {})
            return self._error(status, error, response.headers)
        if kind != "text/event-stream":
            return ModelError(
                f"{self._name} answered with {kind or 'a body of no type'} and not with a stream "
                f"of events; check its URL, {self.url}"
            )
        if (coding := response.headers.get("content-encoding", "identity")).lower() != "identity":
            return ModelError(
                f"{self._name} answered in {coding}, unasked; check what is in front of {self.url}"
            )
        return None

    def _error(self, status: int, error: dict[str, Any], headers: Mapping[str, str]) -> ModelError:
        if self._key and isinstance(message := error.get("message"), str):
            error = {**error, "message": message.replace(self._key, "***")}
        return api_error(self._name, self._key_variable, status, error, headers)

    def _timed_out(self, clocks: Clocks) -> ModelError:
        timeout = clocks.timeout_error()
        return ModelError(
            f"{self._name} did not answer in time: {timeout.phase} took more than "
            f"{timeout.limit:g} s",
            status=504,
        )


def _url_of(proxy: Proxy | None) -> str | None:
    if proxy is None:
        return None
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    credentials = ""
    if proxy.username is not None:
        credentials = f"{quote(proxy.username, '')}:{quote(proxy.password or '', '')}@"
    return f"{proxy.scheme}://{credentials}{host}:{proxy.port}"
