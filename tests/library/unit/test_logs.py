"""A service prints and exports any log record, however logging is configured."""

import io
import logging
import logging.config
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from faststream_otel.kafka.broker import Kafka
from faststream_otel.logs import configure_logging
from faststream_otel.telemetry import Telemetry
from faststream_otel.telemetry.errors import describe, fail, stack
from faststream_otel.telemetry.exporters import Delivery, make_exporter
from faststream_otel.telemetry.logs import TracedLoggingHandler
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from uvicorn.config import LOGGING_CONFIG


@pytest.mark.parametrize(
    "name",
    ["aiokafka", "aiokafka.cluster", "aiokafka.consumer.fetcher",
     "aiokafka.consumer.group_coordinator"],
)  # fmt: skip
def test_a_repeated_record_of_a_client_is_printed_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging("INFO", Kafka.noisy_loggers)
    logging.getLogger().addHandler(caplog.handler)

    for broker in [1, 1, 2, 1, 2]:
        logging.getLogger(name).error("%s failed at %s", name, broker)

    assert caplog.messages == [f"{name} failed at 1", f"{name} failed at 2"]


@dataclass
class Logged:
    """What a process printed and exported."""

    telemetry: Telemetry
    exporter: InMemoryLogRecordExporter
    stdout: io.BytesIO = field(default_factory=io.BytesIO)

    def logger(self, name: str = "tested") -> logging.Logger:
        """A logger without the handlers of pytest, which raise on malformed records."""
        found = logging.getLogger(name)
        for logger in (found, found.parent or found, logging.root):
            for handler in logger.handlers[:]:
                if type(handler).__module__.startswith("_pytest"):
                    logger.removeHandler(handler)
        return found

    def records(self) -> list[ReadableLogRecord]:
        """The records that were exported since the last call."""
        self.telemetry.logger_provider.force_flush()
        found = list(self.exporter.get_finished_logs())
        self.exporter.clear()
        return found

    def bodies(self) -> list[str]:
        return [str(one.log_record.body) for one in self.records()]

    def printed(self) -> str:
        """The output since the last call."""
        text = self.stdout.getvalue().decode()
        self.stdout.seek(0)
        self.stdout.truncate()
        return text


@contextmanager
def logged(*, configure: bool = True) -> Iterator[Logged]:
    """Telemetry and logging as in a new process."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    before, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers.clear()
    stdout = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(stdout, encoding="utf-8", write_through=True))
        if configure:
            configure_logging("INFO")
        telemetry = Telemetry("tested", log_exporter=exporter, make_global=False)
        try:
            yield Logged(telemetry, exporter, stdout)
        finally:
            telemetry.close()
            logging.config.dictConfig(
                {"version": 1, "disable_existing_loggers": False, "loggers": {
                    name: {"handlers": [], "propagate": True}
                    for name in ("uvicorn", "uvicorn.access", "faststream")}}
            )  # fmt: skip
            logging.root.handlers[:] = before
            logging.root.setLevel(level)
            for name in logging.root.manager.loggerDict:
                logging.getLogger(name).disabled = False


@pytest.fixture(scope="module")
def process() -> Iterator[Logged]:
    with logged() as found:
        yield found


class Raises(Exception):
    """An object, or an error, that raises at every operation."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # for hypothesis
        printer.text("Raises()")

    def __format__(self, spec: str) -> str:
        raise self.error

    def __index__(self) -> int:
        raise self.error

    def __bool__(self) -> bool:
        raise self.error

    def __len__(self) -> int:
        raise self.error


class Pretends:
    """Raises even at `__class__`, like proxies of web frameworks outside of a request."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("outside of a request")

    def __str__(self) -> str:
        raise RuntimeError("outside of a request")

    __repr__ = __str__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("Pretends()")


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


CIRCULAR: dict[str, Any] = {}
CIRCULAR["self"] = [CIRCULAR, {1: CIRCULAR}]
SPECIAL: dict[str, Any] = {  # by name: hypothesis would show them, and some raise
    "huge": 10**5000, "circular": CIRCULAR, "set": {"a", 1}, "object": object(), "class": type,
    "deep": deep(), "nothing": {}, "named": {"a": "b"},
}  # fmt: skip
ERRORS = [ValueError("no"), KeyError("\udc80"), RecursionError(), StopIteration(), MemoryError()]
TEXTS = st.text(st.characters(), max_size=20)  # including lone surrogates
OBJECTS = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=5)
    | st.builds(Raises, st.sampled_from(ERRORS)) | st.builds(Pretends)
    | st.sampled_from(sorted(SPECIAL)).map(lambda name: SPECIAL[name])
)  # fmt: skip
VALUES = OBJECTS | st.lists(OBJECTS, max_size=2) | st.dictionaries(TEXTS, OBJECTS, max_size=2)
FORMATS = TEXTS | st.sampled_from(
    ["%d", "%s", "%r and %s", "%(a)s", "%", "%*d", "%c", "%.*f", "{}", "%s %s %s"]
)


def raised(error: BaseException) -> BaseException:
    try:
        raise error from Raises(ValueError())
    except BaseException as found:
        return found


def with_odd_notes(notes: Any) -> Exception:
    error = Exception("noted")
    error.__notes__ = notes
    return error


def with_attribute(**attributes: Any) -> Exception:
    error = Exception("no group")
    vars(error).update(attributes)
    return error


ODD_ERRORS = [
    raised(Raises(ValueError("x"))),
    Raises(RecursionError()),
    ExceptionGroup("some", [Raises(ValueError()), ValueError("\udc80")]),
    with_odd_notes(5),
    with_odd_notes([Raises(ValueError()), "\udc80"]),
    with_attribute(exceptions=None),
    with_attribute(exceptions={"a": 1}),
]


EXC_INFO: list[Any] = [
    None, True, (), (1, 2, 3), ("a",), (ValueError, None, None),
    *((type(error), error, error.__traceback__) for error in ODD_ERRORS),
]  # fmt: skip


@given(
    message=FORMATS | OBJECTS,
    arguments=st.lists(VALUES, max_size=3),
    extra=st.dictionaries(TEXTS.map("x{}".format) | st.integers(), VALUES, max_size=3),
    exc_info=st.sampled_from(range(len(EXC_INFO))).map(lambda at: EXC_INFO[at]),
)
@example("%d", ["x"], {}, None)
@example(Raises(ValueError("x")), [Raises(ValueError("x"))], {"x": Pretends()}, None)
@settings(max_examples=100, deadline=None)
def test_a_log_call_never_raises_and_is_exported_and_printed(
    process: Logged, message: Any, arguments: list[Any], extra: dict[Any, Any], exc_info: Any
) -> None:
    try:  # `logging` itself refuses some records
        logging.LogRecord("tested", 20, "", 0, message, tuple(arguments), None)
    except Exception:
        return
    process.logger().warning(message, *arguments, extra=extra, exc_info=exc_info)

    (record,) = process.records()
    assert record.log_record.severity_text == "WARN"
    assert len(record.log_record.attributes or {}) >= len(extra)
    assert process.printed().count(" WARNING tested trace_id= span_id=") == 1


@pytest.mark.parametrize("error", ODD_ERRORS)
def test_an_error_without_a_text_does_no_harm(error: Exception, process: Logged) -> None:
    describe(error).encode()
    stack(error).encode()
    span = process.telemetry.tracer_provider.get_tracer("t").start_span("span")
    fail(span, error)
    span.end()
    assert type(error).__name__ in stack(error)


@pytest.mark.parametrize(
    ("message", "arguments", "told"),
    [
        ("%d left", ("x",), ["%d left", "'x'", "TypeError"]),
        ("%s", ("a", "b"), ["%s", "'a'", "'b'"]),
        ("of %s: %s", ("a", Raises(KeyError("x"))), ["of %s: %s", "'a'", "Raises", "KeyError"]),
        ("%(name)s", ({"other": 1},), ["%(name)s", "'other': 1"]),
        ("name \udc80", (), ["name \\udc80"]),
    ],
)
def test_a_malformed_record_shows_its_parts(
    process: Logged, message: str, arguments: tuple[Any, ...], told: list[str]
) -> None:
    process.logger().info(message, *arguments)
    (body,) = process.bodies()
    printed = process.printed()
    for text in told:
        assert text in body
        assert text in printed


def test_a_keyboard_interrupt_ends_a_log_call(process: Logged) -> None:
    class Interrupts:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.logger().info("%s", Interrupts())


def test_an_object_that_logs_itself_does_not_recurse_without_end(process: Logged) -> None:
    class Echoes:
        def __str__(self) -> str:
            process.logger().info("asked for %s", self)
            return "echo"

    process.logger().info("%s", Echoes())
    assert process.records()


@pytest.mark.parametrize("name", ["aiokafka", "faststream.messages"])
def test_filters_accept_any_record(name: str, process: Logged) -> None:
    process.logger(name).error("%d", "x")
    assert len(process.records()) == 1


@pytest.mark.parametrize(
    "name",
    ["grpc_bridge", "grpcx", "urllib3_tools", "opentelemetry_demo", "my.grpc", "faststream_x",
     "uvicornish", "root"],
)  # fmt: skip
def test_a_logger_with_a_similar_name_is_exported(name: str, process: Logged) -> None:
    process.logger(name).warning("mine")
    assert process.bodies() == ["mine"]


@pytest.mark.parametrize("name", ["grpc", "grpc._channel", "urllib3.connectionpool",
                                  "opentelemetry.sdk"])  # fmt: skip
def test_log_records_of_the_export_are_not_exported(name: str, process: Logged) -> None:
    logging.getLogger(name).critical("no Collector")
    assert process.bodies() == []


SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "gunicorn.access",
           "faststream", "faststream.access.kafka")  # fmt: skip
DICT_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "root": {"level": "INFO", "handlers": ["null"]},
    "loggers": {name: {"level": "INFO", "propagate": False, "handlers": ["null"]}
                for name in ("gunicorn.error", "gunicorn.access")},
}  # fmt: skip


def clear() -> None:
    logging.root.handlers.clear()


def as_loguru_recommends() -> None:
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False


def propagate_again() -> None:
    for name in SERVERS:
        logging.getLogger(name).propagate = True


CONFIGURATIONS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "uvicorn": lambda: logging.config.dictConfig(LOGGING_CONFIG),
    "basicConfig": lambda: logging.basicConfig(level=logging.INFO),
    "basicConfig(force)": lambda: logging.basicConfig(level=logging.INFO, force=True),
    "dictConfig": lambda: logging.config.dictConfig(DICT_CONFIG),
    "clear": clear,
    "loguru": as_loguru_recommends,
    "ours": lambda: configure_logging("INFO"),
    "propagate": propagate_again,
}


@pytest.mark.parametrize("second", CONFIGURATIONS)
@pytest.mark.parametrize("first", CONFIGURATIONS)
def test_records_are_exported_once_however_logging_is_configured(first: str, second: str) -> None:
    with logged(configure=False) as process:
        for name in SERVERS:
            logging.getLogger(name).setLevel(logging.INFO)
        for configure in (CONFIGURATIONS[first], CONFIGURATIONS[second]):
            configure()
            for name in ("tested", *SERVERS):
                logging.getLogger(name).warning("of %s", name)
            assert process.bodies() == [f"of {name}" for name in ("tested", *SERVERS)]


def test_loggers_that_were_not_disabled_keep_working() -> None:
    with logged() as process:
        logging.getLogger("kept")
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": True, "root": {"level": "INFO"},
             "loggers": {"kept": {}}}
        )  # fmt: skip
        logging.getLogger("kept").info("goes on")
        logging.getLogger("new").info("too")
        assert process.bodies() == ["goes on", "too"]


def test_telemetry_does_not_prevent_basic_config(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(configure=False) as process:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        process.logger().info("printed")
        assert process.printed() == "printed\n"
        assert process.bodies() == ["printed"]


def test_a_warning_is_printed_if_logging_is_not_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logged(configure=False) as process, logged(configure=False):
        process.logger().info("not this")
        process.logger().warning("seen")
        process.logger("uvicorn.error").warning("too")
        assert capsys.readouterr().err == "seen\ntoo\n"
        logging.basicConfig(stream=sys.stdout, force=True)
        process.logger().warning("by the application's handler")
        assert capsys.readouterr().err == ""


LATE = """
import logging
from faststream_otel.telemetry import Telemetry

telemetry = Telemetry("tested", make_global=False)
logging.getLogger("early").error("early")
(handler,) = logging.root.handlers
telemetry.close()
handler.handle(logging.makeLogRecord({"name": "late", "levelno": logging.ERROR, "msg": "late"}))
"""


def test_a_record_at_the_end_of_telemetry_does_no_harm() -> None:
    options = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    options |= {"OTEL_LOGS_EXPORTER": "console", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=options, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "early\n")


def test_no_handler_of_ours_remains_when_telemetry_ends() -> None:
    def state() -> object:
        loggers = [logging.getLogger(name) for name in ("", "tested", *SERVERS)]
        return logging.getLogRecordFactory(), [logger.handlers[:] for logger in loggers]

    before = state()
    with logged() as first, logged(configure=False) as second:
        for process in (first, second):
            process.logger().error("before")
            for name in SERVERS:
                process.logger(name).error("before")
        assert state() != before
    logging.getLogger("tested").error("after")
    assert state() == before


def test_a_record_has_its_attributes_and_its_error(process: Logged) -> None:
    try:
        raise LookupError("no such order")
    except LookupError:
        process.logger().exception(
            "failed", extra={"order": "o-1", "otel.event.name": "order.failed"}
        )
    record = process.records()[-1]
    log, attributes = record.log_record, dict(record.log_record.attributes or {})
    assert "in test_a_record" in str(attributes.pop("exception.stacktrace"))
    assert attributes == {
        "order": "o-1",
        "exception.type": "LookupError",
        "exception.message": "no such order",
    }
    assert (log.body, log.event_name, log.severity_text) == ("failed", "order.failed", "ERROR")
    assert record.instrumentation_scope
    assert record.instrumentation_scope.name == "tested"


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [(5, 4, "Level 5"), (10, 5, "DEBUG"), (20, 9, "INFO"), (25, 12, "Level 25"), (30, 13, "WARN"),
     (40, 17, "ERROR"), (50, 21, "FATAL"), (90, 24, "Level 90")],
)  # fmt: skip
def test_levels(level: int, number: int, text: str, process: Logged) -> None:
    logger = process.logger("tested.levels")
    logger.setLevel(1)
    logger.log(level, "x")
    (record,) = process.records()
    assert record.log_record.severity_number
    assert (record.log_record.severity_number.value, record.log_record.severity_text) == (
        number, text,
    )  # fmt: skip


def test_a_level_that_another_handler_has_coloured_is_exported_plain(process: Logged) -> None:
    class Colouring(logging.Handler):  # as FastStream's formatter does, in the record itself
        def emit(self, record: logging.LogRecord) -> None:
            record.levelname = f"\033[33m{record.levelname}\033[0m   "

    logger, handler = process.logger("tested.colours"), Colouring()
    logger.addHandler(handler)
    logger.warning("x")
    logger.removeHandler(handler)
    assert process.records()[-1].log_record.severity_text == "WARN"


@pytest.mark.parametrize("arguments", [(), ("%s",), ({"a": 1},), (None, 1)])
def test_urllib3_may_log_anything_once_there_is_an_exporter_over_http(
    arguments: tuple[object, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its warnings of our own attempts to connect are dropped, and nothing else."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    make_exporter("traces", Delivery())
    text = "pool" + " %s" * len(arguments)
    logging.getLogger("urllib3.connectionpool").warning(text, *arguments)
    assert [record.msg for record in caplog.records] == [text]


class _Encoded(LogRecordExporter):
    takes_encoded = True

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        self.got += [data for data, _ in batch]
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _Counting(LogRecordProcessor):
    """A processor of the service's own."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.bodies.append(str(log_record.log_record.body))

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


RECORDS: list[tuple[int, str, tuple[object, ...]]] = [
    (logging.INFO, "order %s", (5,)),
    (logging.DEBUG, "ä 注文 🛒 \udc80", ()),
    (logging.CRITICAL, "x" * 10_000, ()),
    (logging.WARNING, "too few %s %s", (1,)),
    (35, "", ()),
]


def test_a_plain_record_is_the_same_whichever_way_it_is_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Directly, or through the provider, as soon as that has another processor."""
    monkeypatch.setattr("faststream_otel.telemetry.logs.time_ns", lambda: 1_700_000_000 * 10**9)
    exporter, counting = _Encoded(), _Counting()
    telemetry = Telemetry("tested", log_exporter=exporter, make_global=False)
    try:
        handler = TracedLoggingHandler(telemetry.logger_provider)
        records = [
            logging.LogRecord("tested", level, "file.py", 1, text, arguments, None)
            for level, text, arguments in RECORDS
        ]
        span = SpanContext(2**120, 2**60, is_remote=True, trace_flags=TraceFlags(1))

        def log() -> None:
            for record in records:
                handler.emit(record)
            with use_span(NonRecordingSpan(span)):
                handler.emit(records[0])

        log()
        telemetry.logger_provider.add_log_record_processor(counting)
        log()
    finally:
        telemetry.close()
    half = len(RECORDS) + 1
    assert len(exporter.got) == 2 * half
    assert exporter.got[:half] == exporter.got[half:]
    assert len(counting.bodies) == half
