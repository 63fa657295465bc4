"""The pytest plugin: what a project's test sees of its services."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from faststream_otel import Service, Telemetry
from faststream_otel.kafka import KafkaSettings
from faststream_otel.testing import Client, DeadLetter, Publish, ServiceFlow, Trace
from opentelemetry import trace as opentelemetry_trace
from pydantic import BaseModel

pytest_plugins = ["pytester"]

logger = logging.getLogger("shop")


class Order(BaseModel):
    number: int


def shop() -> tuple[Service, Service]:
    """Two services: one passes on what the other takes many at a time, and fails at number 13."""
    settings = KafkaSettings(retry_attempts=2, retry_backoff_seconds=0)
    first, second = Service("first", settings), Service("second", settings)

    @first.subscriber("placed")
    @first.publisher("packed")
    async def pack(order: Order) -> Order:
        logger.info("Order %d packed", order.number)
        with first.tracer.start_as_current_span("wrap"):
            if order.number == 13:
                raise LookupError("no box")
        return order

    @second.subscriber("packed", batch=True)
    async def send(orders: list[Order]) -> None: ...

    return first, second


@pytest.fixture
def services() -> tuple[Service, ...]:
    return shop()


EDGES = [
    ("send placed", "process placed"),
    ("process placed", "wrap"),
    ("process placed", "send packed"),
]


async def test_a_flow_is_described_by_edges_links_and_roots(publish: Publish, trace: Trace) -> None:
    await publish("placed", Order(number=1))

    assert trace.edges() == EDGES
    assert trace.links() == [("send packed", "process packed")]
    assert trace.roots() == ["send placed", "process packed"]


async def test_one_trace_of_several_can_be_selected(publish: Publish, trace: Trace) -> None:
    await publish("placed", Order(number=1))
    await publish("placed", Order(number=2))

    first, batch, *others = trace.trace_ids
    assert len(others) == 2
    assert trace.of(first).edges() == EDGES
    assert trace.of(first).trace_ids == [first]
    assert trace.of(batch).links() == [("send packed", "process packed")]
    assert [log.message for log in trace.of(first).logs if log.logger == "shop"] == [
        "Order 1 packed"
    ]


async def test_attributes_are_those_of_the_one_span(publish: Publish, trace: Trace) -> None:
    await publish("placed", Order(number=1))
    assert trace.attributes("send placed")["messaging.destination.name"] == "placed"

    await publish("placed", Order(number=2))
    with pytest.raises(AssertionError, match=r"2 spans are named 'wrap':\nsend placed\n  process"):
        trace.span("wrap")


async def test_a_log_record_has_the_span_it_was_logged_in(publish: Publish, trace: Trace) -> None:
    logger.warning("Outside of %s", "any", extra={"shelf": 3})
    await publish("placed", Order(number=1))

    outside, inside = (log for log in trace.logs if log.logger == "shop")
    assert (outside.message, outside.severity) == ("Outside of any", "WARN")
    assert (outside.trace_id, outside.span_id, outside.attributes) == ("", "", {"shelf": 3})
    context = trace.span("process placed").get_span_context()
    assert context
    assert inside.span_id == opentelemetry_trace.format_span_id(context.span_id)
    assert inside.trace_id == trace.trace_ids[0]


async def test_what_is_published_is_seen_as_it_was_published(service_flow: ServiceFlow) -> None:
    await service_flow.publish("placed", {"number": 1})
    await service_flow.publish("placed", Order(number=2))

    assert service_flow.published("placed") == [{"number": 1}, Order(number=2)]
    assert service_flow.published("packed") == [Order(number=1), Order(number=2)]
    assert service_flow.published("elsewhere") == []


@pytest.mark.parametrize(
    ("event", "attempts", "error_type"),
    [
        (Order(number=13), 2, "LookupError"),
        (b"{not json", 1, "pydantic_core._pydantic_core.ValidationError"),
    ],
)
async def test_dead_letters_say_why(
    publish: Publish,
    dead_letters: list[DeadLetter],
    event: Order | bytes,
    attempts: int,
    error_type: str,
) -> None:
    await publish("placed", event, headers={"tenant": "acme"})

    (letter,) = dead_letters
    assert (letter.channel, letter.attempts, letter.error_type) == ("placed", attempts, error_type)
    assert letter.body == (event if isinstance(event, bytes) else event.model_dump_json().encode())
    assert letter.headers["tenant"] == "acme"
    assert letter.reason


async def test_http_is_called_without_a_socket(
    http_client: Client, service_flow: ServiceFlow
) -> None:
    first, second = service_flow.services
    answer = await http_client(first).get("/metrics")
    assert answer.status_code == 200
    assert http_client(first) is http_client(first)
    assert http_client(first) is not http_client(second)


class TestNextTest:
    """What one test did, the next one does not see, though services live as long as the process."""

    both = shop()

    @pytest.fixture
    def services(self) -> tuple[Service, ...]:
        return self.both

    @pytest.mark.parametrize("times", [1, 2])
    async def test_each_test_starts_empty(
        self,
        publish: Publish,
        trace: Trace,
        dead_letters: list[DeadLetter],
        service_flow: ServiceFlow,
        times: int,
    ) -> None:
        assert (trace.spans, trace.logs, dead_letters) == ([], [], [])
        for _ in range(times):
            await publish("placed", Order(number=13))
        assert trace.roots() == ["send placed"] * times
        assert len(dead_letters) == len(service_flow.published("placed")) == times


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry("alone", make_global=False)
    yield telemetry
    telemetry.close()


def test_telemetry_without_a_service_is_recorded_on_request(
    trace: Trace, telemetry: Telemetry
) -> None:
    trace.record(telemetry.tracer_provider)
    tracer = telemetry.tracer_provider.get_tracer("t")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        assert trace.spans == []  # none has ended
    assert trace.edges() == [("outer", "inner")]
    assert str(trace) == "outer\n  inner"


# --- The plugin as pytest has it


def test_without_services_it_says_what_to_write(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(service_flow): ...")
    result = pytester.runpytest_subprocess("-o", "asyncio_mode=auto")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Override the fixture `services` in conftest.py:"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("marker", "options"),
    [("asyncio", ["-o", "asyncio_mode=strict"]), ("anyio", ["-p", "no:asyncio"])],
)
def test_it_works_with_each_plugin_for_asynchronous_tests(
    pytester: pytest.Pytester, marker: str, options: list[str]
) -> None:
    pytester.makeconftest(
        """
        import pytest
        from faststream_otel import Service
        from faststream_otel.kafka import KafkaSettings
        from faststream_otel.testing import Trace  # no name in it hides a fixture

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        def services():
            return [Service("one", KafkaSettings())]
        """
    )
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.{marker}
        async def test(publish, trace):
            await publish("channel", "text")
            assert trace.roots() == ["send channel"]
        """
    )
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)


def test_a_suite_without_it_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, sys

        def test():
            loaded = {name.partition(".")[0] for name in sys.modules}
            assert not loaded & {"opentelemetry", "faststream", "pydantic", "httpx"}
            assert not [name for name in os.environ if name.endswith("_EXPORTER")]
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        for signal in ("TRACES", "METRICS", "LOGS"):
            patch.delenv(f"OTEL_{signal}_EXPORTER", raising=False)
        # Without the other plugins that are installed here, which may import what they like.
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        result = pytester.runpytest_subprocess("-p", "faststream_otel.testing")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(("variable", "exporters"), [("", 0), ("otlp", 1)])
def test_nothing_is_exported_unless_a_test_says_so(
    pytester: pytest.Pytester, variable: str, exporters: int
) -> None:
    pytester.makeconftest(
        """
        from faststream_otel.telemetry.environment import exporter_names
        seen = exporter_names("traces")  # as a service that conftest.py imports sees it
        """
    )
    pytester.makepyfile(
        f"""
        import conftest

        def test():
            assert len(conftest.seen) == {exporters}
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_EXPORTER", variable)
        pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_outside_of_pytest_the_default_is_otlp() -> None:
    program = (
        "import faststream_otel.testing; from faststream_otel.telemetry import environment;"
        "assert environment.default_exporter == 'otlp'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
