"""Spans and metrics of requests, as an OpenTelemetry SDK receives them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

import anyio
import pytest
from opentelemetry import context, metrics, trace
from support.log_events import (
    BEGUN,
    NOTHING,
    ask,
    be_cancelled,
    fail_in_the_block,
    leave,
)
from support.loops import virtual
from support.raw_site import raw_site, replying

from gprochat_anyio import (
    Client,
    GPROChatError,
    Retry,
    SyncClient,
    Timeouts,
    gather,
    otel,
    race,
)
from gprochat_anyio.testing import Drop, Hang, Pause, Refuse, Reply, Say, live_site, scripted_site

URL = "http://site.test"
DURATION = "gen_ai.client.operation.duration"
FIRST = "gen_ai.client.operation.time_to_first_chunk"
SITE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "gprochat",
    "server.address": "site.test",
    "server.port": 80,
}


class Span(trace.NonRecordingSpan):
    """A span that records its attributes, events and status."""

    def __init__(self, name: str, kind: trace.SpanKind, parent: int, attributes: Any) -> None:
        super().__init__(trace.SpanContext(1, id(self), is_remote=False))
        self.name, self.kind, self.parent = name, kind, parent
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.status: Any = None
        self.ends = 0

    def set_attribute(self, key: str, value: Any) -> None:
        assert not self.ends
        self.attributes[key] = value

    def set_attributes(self, attributes: Any) -> None:
        assert not self.ends
        self.attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: Any = None) -> None:
        assert not self.ends
        self.events.append((name, dict(attributes)))

    def set_status(self, status: Any, description: Any = None) -> None:
        assert not self.ends
        assert description is None
        self.status = status

    def end(self, end_time: Any = None) -> None:
        self.ends += 1


class Recorder(trace.NoOpTracerProvider, metrics.NoOpMeterProvider):
    """A tracer provider and a meter provider that record spans and measurements."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.recorded: list[Any] = []
        self.instruments: dict[str, tuple[str, Any]] = {}

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        spans = self.spans

        class Tracer(trace.NoOpTracer):
            def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
                parent = trace.get_current_span().get_span_context().span_id
                spans.append(Span(name, kwargs["kind"], parent, kwargs["attributes"]))
                return spans[-1]

        return Tracer()

    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> metrics.Meter:
        recorder = self

        class Histogram(metrics.Histogram):
            def __init__(self, name: str, *_: Any) -> None:
                self.name = name

            def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
                recorder.recorded.append((self.name, amount, dict(attributes)))

        class Meter(metrics.NoOpMeter):
            def create_histogram(self, name: str, unit: str = "", *_: Any, **more: Any) -> Any:
                recorder.instruments[name] = unit, more["explicit_bucket_boundaries_advisory"]
                return Histogram(name)

        return Meter(name)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    otel.instrument(tracer_provider=made, meter_provider=made)
    yield made
    otel.uninstrument()


@virtual
async def test_a_request(recorder: Recorder) -> None:
    script = [Say(""), Pause(2), Say("Hel"), Pause(3), Say("lo")]
    async with scripted_site(script, url=URL, connect_after=0.5) as site:
        async with site.client() as client:
            await client.ask("Hi")
            await client.ask("Hi")
    first, again = recorder.spans
    assert (first.name, first.kind, first.parent) == ("chat", trace.SpanKind.CLIENT, 0)
    assert first.attributes == {
        **SITE,
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": pytest.approx(2.5),
        "gprochat.request.end": "done",
        "gprochat.request.attempts": 1,
    }
    assert first.events == [
        ("gprochat.connected", {"gprochat.connect.duration": pytest.approx(0.5)})
    ]
    assert not again.events
    assert [span.status for span in recorder.spans] == [None, None]
    assert [span.ends for span in recorder.spans] == [1, 1]
    assert recorder.recorded == [
        (FIRST, pytest.approx(2.5), SITE),
        (DURATION, pytest.approx(5.5), SITE),
        (FIRST, pytest.approx(2.0), SITE),
        (DURATION, pytest.approx(5.0), SITE),
    ]
    assert recorder.instruments.keys() == {FIRST, DURATION}
    for unit, buckets in recorder.instruments.values():
        assert (unit, buckets[0], buckets[-1], len(buckets)) == ("s", 0.01, 81.92, 14)


@virtual
async def test_retries_are_within_one_span(recorder: Recorder) -> None:
    async with scripted_site(Refuse(503, "no"), NOTHING, "ok", url=URL) as site:
        retry, limits = Retry(backoff=0, timeouts=True), Timeouts(first_chunk=4)
        async with site.client(retry=retry, timeouts=limits) as client:
            await client.ask("Hi")
    (span,) = recorder.spans
    assert [event for event in span.events if event[0] == "gprochat.retry"] == [
        (
            "gprochat.retry",
            {
                "gprochat.attempt": 1,
                "gprochat.pause": 0,
                "error.type": "SiteError",
                "http.response.status_code": 503,
            },
        ),
        (
            "gprochat.retry",
            {
                "gprochat.attempt": 2,
                "gprochat.pause": 0,
                "error.type": "RequestTimeoutError",
                "gprochat.timeout.phase": "first_chunk",
            },
        ),
    ]
    assert span.status is None
    assert "error.type" not in span.attributes
    assert span.attributes["gprochat.request.attempts"] == 3
    assert recorder.recorded == [
        (FIRST, pytest.approx(4), SITE),
        (DURATION, pytest.approx(4), SITE),
    ]


@virtual
@pytest.mark.parametrize(
    ("script", "way", "expected", "status"),
    [
        (NOTHING, be_cancelled, {"error.type": "cancelled"}, None),
        (BEGUN, be_cancelled, {"error.type": "cancelled"}, None),
        (BEGUN, leave, {}, None),
        (BEGUN, fail_in_the_block, {}, None),
        (
            BEGUN,
            ask,
            {"error.type": "RequestTimeoutError", "gprochat.timeout.phase": "idle"},
            trace.StatusCode.ERROR,
        ),
        (
            Refuse(401, "Invalid password."),
            ask,
            {"error.type": "AuthenticationError", "http.response.status_code": 401},
            trace.StatusCode.ERROR,
        ),
        (
            [Say("some"), Drop()],
            ask,
            {"error.type": "ReplyInterruptedError"},
            trace.StatusCode.ERROR,
        ),
    ],
)
async def test_how_a_request_ended(
    recorder: Recorder, script: Reply, way: Any, expected: Any, status: Any
) -> None:
    async with scripted_site(script, url=URL) as site:
        async with site.client(retry=Retry(attempts=1)) as client:
            with suppress(GPROChatError, LookupError):
                await way(client)
    (span,) = recorder.spans
    own = ("error.type", "http.response.status_code", "gprochat.timeout.phase")
    assert {key: value for key, value in span.attributes.items() if key in own} == expected
    assert (span.status, span.ends) == (status, 1)
    name, _, attributes = recorder.recorded[-1]
    kind = {"error.type": expected["error.type"]} if expected else {}
    assert (name, attributes) == (DURATION, {**SITE, **kind})


async def test_the_parent_is_the_current_span_at_the_start(recorder: Recorder) -> None:
    async with scripted_site([Say("ok")]) as site, site.client() as client:
        parent = Span("parent", trace.SpanKind.INTERNAL, 0, {})
        with trace.use_span(parent):
            before = context.get_current()
            await client.ask("Hi")
            async with client.stream("Hi") as chunks:
                assert trace.get_current_span() is parent
                await chunks.read()
            await gather(client, ["Hi"] * 5, max_at_once=2)
            async with race(client, "Hi") as chunks:
                await chunks.read()
            assert context.get_current() is before
    assert len(recorder.spans) in (8, 9)  # the race may be won before its second start
    assert {span.parent for span in recorder.spans} == {parent.get_span_context().span_id}
    assert {span.ends for span in recorder.spans} == {1}


async def test_a_stream_closed_by_another_task(recorder: Recorder) -> None:
    """Its span ends as well. That task has no context to restore."""
    async with scripted_site([Say("some"), Hang()]) as site, site.client() as client:
        async with anyio.create_task_group() as tasks, client.stream("Hi") as chunks:
            await chunks.receive()
            tasks.start_soon(chunks.aclose)
            with suppress(anyio.ClosedResourceError):
                await chunks.receive()
    (span,) = recorder.spans
    assert (span.ends, span.attributes["gprochat.request.end"]) == (1, "left")


async def test_one_client(recorder: Recorder) -> None:
    own = Recorder()
    async with scripted_site([Say("ok")]) as site, Client(site.url) as one, Client(site.url) as two:
        otel.instrument(one, tracer_provider=own, meter_provider=own)
        await one.ask("Hi")
        await two.ask("Hi")
        assert (len(own.spans), len(recorder.spans)) == (1, 1)
        otel.uninstrument(one)
        await one.ask("Hi")
        assert (len(own.spans), len(recorder.spans)) == (1, 2)


def test_without_async(recorder: Recorder) -> None:
    parent = Span("parent", trace.SpanKind.INTERNAL, 0, {})
    with raw_site(replying("ok")) as site, SyncClient(site.url) as client:
        with trace.use_span(parent):
            client.ask("Hi")
            with client.stream("Hi") as chunks:
                chunks.read()
    assert [span.ends for span in recorder.spans] == [1, 1]
    assert {span.parent for span in recorder.spans} == {parent.get_span_context().span_id}


async def test_no_content_in_any_attribute(recorder: Recorder) -> None:
    secrets: dict[str, Any] = {"secret_key": "canary-key", "password": "canary-password"}
    cut = [Say("canary-text"), Drop()]
    async with live_site(Refuse(503, "canary-site"), cut, **secrets) as site:
        async with site.client(retry=Retry(attempts=2, backoff=0)) as client:
            with pytest.raises(GPROChatError):
                await client.ask("canary-prompt")
    (span,) = recorder.spans
    assert len(span.events) == 3
    assert "canary" not in str((vars(span), recorder.recorded))


async def test_the_global_providers(recorder: Recorder) -> None:
    """Without an SDK these do nothing, and must not break a request."""
    otel.instrument()
    async with scripted_site([Say("ok")]) as site, site.client() as client:
        assert (await client.ask("Hi")).text == "ok"
    assert not recorder.spans


@pytest.mark.slow
def test_no_import_without_instrumentation() -> None:
    code = "import sys, gprochat_anyio; gprochat_anyio.Client('http://127.0.0.1:9'); "
    code += "print('opentelemetry' in sys.modules)"
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert ran.stdout.strip() == "False"


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gprochat_anyio.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gprochat-anyio\[otel\]'"):
        import_module("gprochat_anyio.otel")
