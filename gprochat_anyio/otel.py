"""OpenTelemetry spans and metrics of requests (extra `otel`).

Nothing is recorded until an application calls `instrument`::

    from gprochat_anyio import otel

    otel.instrument()

Names follow the semantic conventions for generative AI: a span `chat` for each request, and the
histograms `gen_ai.client.operation.duration` and `gen_ai.client.operation.time_to_first_chunk`.
Prompts, replies and error messages are never recorded. `docs/observability.md` lists the
attributes.
"""

from __future__ import annotations

from typing import Final

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "OpenTelemetry is not installed: pip install 'gprochat-anyio[otel]'", name=_missing.name
    ) from _missing

from gprochat_anyio._request.observers import Observers
from gprochat_anyio._request.request_events import (
    End,
    Failure,
    Observe,
    Observed,
    Predecessor,
)

from ._client import Client
from ._fleet.fleet import Fleet
from ._request.chat_client import opener_of
from ._version import __version__

__all__ = ["instrument", "uninstrument"]

_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
                   81.92)  # fmt: skip
_Attributes = dict[str, str | int]


def instrument(
    client: Client | Fleet | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Record all requests that start from now on, until `uninstrument`.

    :param client: Record only this client's requests, or those of a fleet's clients. It replaces
        the recording for all. `None` records every client of the process, including those of
        `SyncClient` and `GPROChat`.
    :param tracer_provider: Replaces the global provider.
    :param meter_provider: Replaces the global provider.
    """
    telemetry = _Telemetry(tracer_provider, meter_provider)
    if client is None:
        Observers.everywhere = telemetry.observe
    else:
        _observe(client, telemetry.observe)


def uninstrument(client: Client | Fleet | None = None) -> None:
    """Undo `instrument`. Requests that have already started are recorded to their end.

    :param client: The client that was passed to `instrument`.
    """
    if client is None:
        Observers.everywhere = None
    else:
        _observe(client, None)


def _observe(client: Client | Fleet, observe: Observe | None) -> None:
    for one in client.clients if isinstance(client, Fleet) else (client,):
        opener_of(one).observers.observe = observe


class _Telemetry:
    """Tracer and instruments, shared by the observers of all requests."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        self.tracer = trace.get_tracer("gprochat_anyio", __version__, tracer_provider)
        meter = metrics.get_meter("gprochat_anyio", __version__, meter_provider)
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self.time_to_first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    def observe(self, endpoint: Observed) -> _SpanObserver:
        attributes: _Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": endpoint.provider,
        }
        if endpoint.port:
            attributes |= {"server.address": endpoint.host, "server.port": endpoint.port}
        if endpoint.model is not None:
            attributes["gen_ai.request.model"] = endpoint.model
        return _SpanObserver(self, attributes)


class _SpanObserver:
    """Observer of one request.

    Its span is a child of the span that is current when the request starts. It is never made
    current itself, because a context must be left in the task that entered it, in reverse order.
    """

    __slots__ = ("_attributes", "_span", "_telemetry")

    def __init__(self, telemetry: _Telemetry, attributes: _Attributes) -> None:
        self._telemetry = telemetry
        self._attributes = attributes
        self._span = telemetry.tracer.start_span(
            "chat",
            kind=trace.SpanKind.CLIENT,
            attributes={**attributes, "gen_ai.request.stream": True},
        )

    def took_over(self, before: Predecessor) -> None:
        why: _Attributes = {} if before.failure is None else _described(before.failure)
        event = "gprochat.hedge" if before.failure is None else "gprochat.failover"
        self._span.add_event(
            event, {"gprochat.after": before.site, "gprochat.seconds": before.seconds, **why}
        )

    def connected(self, seconds: float | None) -> None:
        if seconds is not None:
            self._span.add_event("gprochat.connected", {"gprochat.connect.duration": seconds})

    def retrying(self, attempt: int, failure: Failure, pause: float) -> None:
        why = {"gprochat.attempt": attempt, "gprochat.pause": pause, **_described(failure)}
        self._span.add_event("gprochat.retry", why)

    def first_text(self, seconds: float, attempts: int) -> None:  # noqa: ARG002 - the interface
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
        self._telemetry.time_to_first_chunk.record(seconds, self._attributes)

    def ended(self, end: End) -> None:
        span, attributes, received = self._span, self._attributes, end.received
        span.set_attribute("gprochat.request.end", end.how)
        span.set_attribute("gprochat.request.attempts", end.attempts)
        if received.finish_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [received.finish_reason])
        if received.usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", received.usage.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", received.usage.output_tokens)
        if end.failure is not None and end.how != "left":  # "left": raised by the caller
            attributes = {**attributes, "error.type": end.failure.error}
            span.set_attributes(_described(end.failure))
        if end.how == "failed":
            span.set_status(trace.StatusCode.ERROR)
        self._telemetry.duration.record(end.seconds, attributes)
        span.end()


def _described(failure: Failure) -> _Attributes:
    attributes: _Attributes = {"error.type": failure.error}
    if failure.status is not None:
        attributes["http.response.status_code"] = failure.status
    if failure.phase is not None:
        attributes["gprochat.timeout.phase"] = failure.phase
    return attributes
