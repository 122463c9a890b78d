"""Spans and metrics through OpenTelemetry's own SDK, and the names of its conventions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode
from support.loops import virtual

from gprochat_anyio import Client, Fleet, GPROChatError, Usage, otel
from gprochat_anyio.site import Finish
from gprochat_anyio.testing import Pause, Refuse, Say, scripted_site


class Exported:
    """A client's spans and histograms, as an SDK exports them."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader])

    @property
    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    @property
    def histograms(self) -> dict[str, Any]:
        data: Any = self._reader.get_metrics_data()
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "gprochat_anyio"
        return {metric.name: metric for metric in scope.metrics}


@pytest.fixture
async def exported() -> Exported:
    exported = Exported()
    async with scripted_site(
        [Pause(2), Say("Hel"), Pause(3), Say("lo")], Refuse(400, "No.")
    ) as site:
        async with site.client() as client:
            otel.instrument(
                client,
                tracer_provider=exported.tracer_provider,
                meter_provider=exported.meter_provider,
            )
            await client.ask("Hi")
            with pytest.raises(GPROChatError):
                await client.ask("Hi")
    return exported


@virtual
class TestExported:
    async def test_spans(self, exported: Exported) -> None:
        answered, refused = exported.spans
        assert (answered.name, answered.kind) == ("chat", SpanKind.CLIENT)
        assert answered.status.status_code is StatusCode.UNSET
        assert answered.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(2)
        assert refused.status.status_code is StatusCode.ERROR
        assert refused.status.description is None
        assert refused.attributes["error.type"] == "SiteError"

    async def test_metrics(self, exported: Exported) -> None:
        histograms = exported.histograms
        duration = histograms["gen_ai.client.operation.duration"]
        first = histograms["gen_ai.client.operation.time_to_first_chunk"]
        assert (duration.unit, first.unit) == ("s", "s")
        answered, refused = duration.data.data_points
        assert (answered.count, answered.sum) == (1, pytest.approx(5))
        assert "error.type" not in answered.attributes
        assert refused.attributes["error.type"] == "SiteError"
        (waited,) = first.data.data_points
        assert (waited.count, waited.sum) == (1, pytest.approx(2))
        assert waited.explicit_bounds[:3] == (0.01, 0.02, 0.04)

    async def test_names_are_those_of_the_conventions(self, exported: Exported) -> None:
        attributes, metrics = vars(gen_ai_attributes).values(), vars(gen_ai_metrics).values()
        if "gen_ai.response.time_to_first_chunk" not in attributes:
            pytest.skip("these conventions are older than the time to the first chunk")
        used = {name for span in exported.spans for name in span.attributes}
        assert {name for name in used if name.startswith("gen_ai.")} <= {*map(str, attributes)}
        assert exported.histograms.keys() <= {*map(str, metrics)}

    async def test_a_model_that_counts_tokens(self) -> None:
        async def model(_: object) -> AsyncIterator[str]:
            yield "Hello"
            yield Finish("length", Usage(3, 2))

        exported = Exported()
        async with Client.of(model, name="mine") as client:
            otel.instrument(
                client,
                tracer_provider=exported.tracer_provider,
                meter_provider=exported.meter_provider,
            )
            await client.ask("Hi")
        (span,) = exported.spans
        told = {n: v for n, v in span.attributes.items() if n.startswith(("gen_ai", "server"))}
        del told["gen_ai.response.time_to_first_chunk"]
        assert told == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "in_process",
            "gen_ai.request.model": "mine",
            "gen_ai.request.stream": True,
            "gen_ai.response.finish_reasons": ("length",),
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 2,
        }

    async def test_a_fleet_has_a_span_for_each_site_that_is_asked(self) -> None:
        exported = Exported()
        async with scripted_site(Refuse(500, "No.")) as down, scripted_site("here") as up:
            async with Fleet([down.client(), up.client()]) as fleet:
                otel.instrument(
                    fleet,
                    tracer_provider=exported.tracer_provider,
                    meter_provider=exported.meter_provider,
                )
                while len(exported.spans) < 2 or not down.requests:
                    await fleet.ask("Hi")
                otel.uninstrument(fleet)
                count = len(exported.spans)
                await fleet.ask("Hi")
                assert len(exported.spans) == count
        failed, moved = exported.spans[-2:]
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.attributes["server.address"] in down.url
        assert "gprochat.failover" not in [event.name for event in failed.events]
        assert moved.status.status_code is StatusCode.UNSET
        assert moved.attributes["server.address"] in up.url
        failover = moved.events[0]
        assert failover.name == "gprochat.failover"
        assert failover.attributes["gprochat.after"] == f"{down.url.removeprefix('https://')}:443"
        assert failover.attributes["error.type"] == "SiteError"
        assert failover.attributes["http.response.status_code"] == 500
