"""Dialects: an API's requests as a scripted site reads them, and the bytes of a script's steps."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from gprochat_anyio._wire.admission import Gate, WireResponse, read_parts
from gprochat_anyio._wire.gprochat import FAILURE_MARKER, MODEL_FAILURE_CODE
from gprochat_anyio._wire.json_body import encode_json
from gprochat_anyio._wire.server_sent_events import encode_event

from ._requests import Api, Request, Turn
from ._steps import (
    LAST_CHUNK,
    REPLY_HEAD,
    Fail,
    Refuse,
    Say,
    Stop,
    chunk,
    encode_response,
    reply_head,
)


class Dialect(ABC):
    """The site's end of one API, with the state of one reply."""

    api: ClassVar[Api]

    @abstractmethod
    def __init__(self, request: Request) -> None: ...

    @staticmethod
    @abstractmethod
    def turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
        """Return the history in the body of a request, without invalid messages."""

    @staticmethod
    @abstractmethod
    def secret(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
        """Return the password or the key in a request."""

    @classmethod
    @abstractmethod
    def is_let_in(cls, gate: Gate, headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:
        """Return True if a request has the site's password or key, or none is required."""

    @staticmethod
    def is_signed(gate: Gate, body: Mapping[str, Any], prompt: str) -> bool:  # noqa: ARG004
        """Return True if a request is signed with the secret key, or the API has no signatures."""
        return True

    @staticmethod
    @abstractmethod
    def admit(gate: Gate, request: Request, data: bytes) -> None:
        """Validate a request as the API does.

        :param data: The request's body.
        :raises Refusal: If the request is refused. It holds the response.
        """

    @abstractmethod
    def head(self) -> bytes:
        """Return the head of the reply, and the API's data before the first text."""

    @abstractmethod
    def say(self, step: Say) -> bytes:
        """Return a piece of the reply. It is empty if the step completes no character."""

    @abstractmethod
    def refuse(self, step: Refuse) -> bytes:
        """Return an error response."""

    @abstractmethod
    def fail(self, step: Fail, *, begun: bool) -> bytes:
        """Return an error response or, after the first text, the end of a failed reply."""

    @abstractmethod
    def stop(self, step: Stop) -> bytes:
        """Return the end of a complete reply."""


class GPROChatDialect(Dialect):
    """The API of a GPROChat site, whose replies are plain text."""

    api = "gprochat"

    def __init__(self, request: Request | None) -> None:
        pass

    @staticmethod
    def turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
        return turns_in_parts(body.get("messages"))

    @staticmethod
    def secret(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:  # noqa: ARG004
        password = body.get("pass")
        return password if isinstance(password, str) else None

    @classmethod
    def is_let_in(
        cls,
        gate: Gate,
        headers: Mapping[str, str],  # noqa: ARG003
        body: Mapping[str, Any],
    ) -> bool:
        return gate.has_password(dict(body))

    @staticmethod
    def is_signed(gate: Gate, body: Mapping[str, Any], prompt: str) -> bool:
        return gate.has_signature(dict(body), prompt)

    @staticmethod
    def admit(gate: Gate, request: Request, data: bytes) -> None:  # noqa: ARG004
        gate.admit(data)

    def head(self) -> bytes:
        return REPLY_HEAD

    def say(self, step: Say) -> bytes:
        return step.data

    def refuse(self, step: Refuse) -> bytes:
        return step.data

    def fail(self, step: Fail, *, begun: bool) -> bytes:
        if begun:
            return chunk(FAILURE_MARKER) + LAST_CHUNK
        return Refuse(500, step.message, code=MODEL_FAILURE_CODE).data

    def stop(self, step: Stop) -> bytes:  # noqa: ARG002 - not part of the API
        return LAST_CHUNK


class EventDialect(Dialect):
    """An API whose replies are server-sent events, each with a JSON object."""

    def __init__(self, request: Request) -> None:  # noqa: ARG002
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @classmethod
    def is_let_in(cls, gate: Gate, headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:
        return gate.opens(cls.secret(headers, body) or "")

    def head(self) -> bytes:
        return reply_head("text/event-stream")

    def say(self, step: Say) -> bytes:
        text = self._decode(step.encoded)
        return json_event(self._piece(text)) if text else b""

    def refuse(self, step: Refuse) -> bytes:
        response = WireResponse(step.status)
        if step.message is not None:
            response = json_response(step.status, self._error(step, step.message))
        return encode_response(response, retry_after=step.retry_after)

    def fail(self, step: Fail, *, begun: bool) -> bytes:
        error = Refuse(500, step.message)
        if begun:
            return json_event(self._error(error, step.message)) + LAST_CHUNK
        return self.refuse(error)

    def stop(self, step: Stop) -> bytes:
        self._decode(b"", final=True)
        return self._finish(step) + LAST_CHUNK

    @abstractmethod
    def _piece(self, text: str) -> dict[str, Any]:
        """Return the event for a piece of text."""

    @abstractmethod
    def _finish(self, step: Stop) -> bytes:
        """Return the events at the end of a complete reply."""

    @abstractmethod
    def _error(self, step: Refuse, message: str) -> dict[str, Any]:
        """Return the API's error."""

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        """Return the text that these bytes complete, as JSON cannot hold a partial character."""
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise ValueError(
                "a Say step has bytes that are not UTF-8, which an event of JSON cannot hold; "
                "use Raw"
            ) from None


def json_event(value: object) -> bytes:
    """Encode a value as a server-sent event, in a separate HTTP chunk."""
    return chunk(encode_event(encode_json(value)))


def json_response(status: int, value: object) -> WireResponse:
    """Return a complete response with a JSON value."""
    return WireResponse(status, encode_json(value), "application/json")


def turns_in_parts(messages: object) -> tuple[Turn, ...]:
    """Return the messages of GPROChat's and Gemini's APIs, without invalid ones."""
    if not isinstance(messages, list):
        return ()
    return tuple(
        Turn(str(message.get("role")), read_parts(message) or "")
        for message in messages
        if isinstance(message, dict)
    )
