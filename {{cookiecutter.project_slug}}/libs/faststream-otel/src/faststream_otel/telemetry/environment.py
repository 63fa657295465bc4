"""Checks the `OTEL_*` environment variables before OpenTelemetry reads them.

Without this, a bad value causes a traceback at import, a warning that does not name the variable,
or nothing until the first export fails. The variables are those of "Environment Variable
Specification" and "OpenTelemetry Protocol Exporter" in the OpenTelemetry specification;
docs/telemetry.md lists them.

This module does not import OpenTelemetry, whose API reads OTEL_PROPAGATORS at import.
"""

import math
import os
import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
Queue = Literal["OTEL_BSP", "OTEL_BLRP"]
QUEUES: tuple[Queue, ...] = ("OTEL_BSP", "OTEL_BLRP")

default_exporter = "otlp"
"""Default of OTEL_{TRACES,METRICS,LOGS}_EXPORTER. `faststream_otel.testing` sets it to `none`."""

LOG_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "info": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
    "fatal": "CRITICAL",
    "critical": "CRITICAL",
    "none": "CRITICAL",
}
"""Values of OTEL_LOG_LEVEL, with the corresponding levels of `logging`."""

_PROPAGATOR_PACKAGES = {
    "b3": "opentelemetry-propagator-b3",
    "b3multi": "opentelemetry-propagator-b3",
    "jaeger": "opentelemetry-propagator-jaeger",
    "ottrace": "opentelemetry-propagator-ot-trace",
    "xray": "opentelemetry-propagator-aws-xray",
}
_BUILT_IN_PROPAGATORS = ("tracecontext", "baggage")

_MOST = 2**31 - 1
"""The largest number that the specification requires an SDK to accept."""
# The schemes of the specification, and those of gRPC's target names.
_GRPC_SCHEMES = {"http", "https", "dns", "unix", "unix-abstract", "ipv4", "ipv6", "vsock", "xds"}
_TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER = re.compile(rf'{_TOKEN}[ \t]*=[ -!#-+\--:<-\[\]-~]*')  # fmt: skip

# These may hold any bytes: the exporter escapes what is not UTF-8.
_ANY_BYTES = {"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"}

Check = Callable[[str], str]
"""Returns the value in the form that OpenTelemetry for Python accepts. Raises `_Wrong`."""


class BadVariable(ValueError):
    """An environment variable has a bad value. Names it, the reason, and a good value."""


class _Wrong(Exception):
    """The reason why a value is bad, and a good value; `_bad` adds the variable's name."""

    def __init__(self, reason: str, good: str) -> None:
        super().__init__(reason)
        self.good = good


def prepare_environment() -> None:
    """Check the variables, trim their values, and unset the empty ones.

    Calling it again is cheap.

    Raises:
        BadVariable: A variable has a bad value. The text quotes no secrets.
    """
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        value = os.environ[name].strip()
        if not value:
            del os.environ[name]
            continue
        try:
            if name not in _ANY_BYTES:
                value.encode()
            value = _CHECKS.get(name, str)(value)
        except UnicodeEncodeError:
            msg = f"{name} is not UTF-8 text"
            raise BadVariable(msg) from None
        except _Wrong as wrong:
            raise _bad(name, value, wrong) from None
        os.environ[name] = value
    for signal in SIGNALS:
        _check_endpoint(signal)
        _check_pair(signal)
    for queue in QUEUES:
        _check_batch(queue)


def environment_warnings() -> list[str]:
    """Warnings to log about variables whose effect may surprise whoever set them."""
    warnings = [
        f"{name}={value} is taken as {value} seconds, as OpenTelemetry for Python does. The"
        " specification says milliseconds, and a number of 1000 or more is taken as such: write"
        f" {name}={max(_FIRST_MILLISECONDS, round(float(value) * 1000))}"
        for name in _per_signal("TIMEOUT")
        if (value := os.environ.get(name)) and 0 < float(value) < _FIRST_MILLISECONDS
    ]
    warnings += [
        f"{name}={value!r} is taken as false; write {name}=true to switch it on"
        for name in _BOOLEANS
        if (value := os.environ.get(name)) and value.lower() not in ("true", "false")
    ]
    warnings += [
        f"{name} is not supported and has no effect; the other OTEL_* variables apply"
        for name in ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE", "OTEL_ENTITIES")
        if name in os.environ
    ]
    return warnings


def exporter_names(signal: Signal) -> list[str]:
    """The value of OTEL_{TRACES,METRICS,LOGS}_EXPORTER: `otlp`, `console`, both or none."""
    names = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") or default_exporter
    return [] if names == "none" else names.split(",")


def otlp_setting(signal: Signal, option: str) -> str:
    """OTEL_EXPORTER_OTLP_{SIGNAL}_{OPTION}, or the general OTEL_EXPORTER_OTLP_{OPTION}."""
    return os.environ.get(_variable(signal, option), "")


def otlp_protocol(signal: Signal) -> str:
    """`grpc` (the default) or `http/protobuf`."""
    return otlp_setting(signal, "PROTOCOL") or "grpc"


_FIRST_MILLISECONDS = 1000


def otlp_timeout(signal: Signal) -> float:
    """OTEL_EXPORTER_OTLP_TIMEOUT or the signal's own variable, in seconds; 10 by default.

    The specification says milliseconds, OpenTelemetry for Python takes seconds. Here a number of
    1000 or more is milliseconds, a smaller one is seconds, and 0 means no limit.
    """
    number = float(otlp_setting(signal, "TIMEOUT") or 10)
    if number == 0:
        return _MOST / 1000
    return number if number < _FIRST_MILLISECONDS else number / 1000


_QUEUE_SIZES: dict[Queue, int] = {"OTEL_BSP": 65_536, "OTEL_BLRP": 2048}
"""Defaults. Spans come in bursts, which the SDK's default of 2048 loses. A span that waits encoded
takes 0.8 KB, a full queue of them 55 MB."""


def queue_size(queue: Queue) -> int:
    """OTEL_{BSP,BLRP}_MAX_QUEUE_SIZE; by default 65,536 spans or 2048 log records."""
    return int(os.environ.get(f"{queue}_MAX_QUEUE_SIZE", _QUEUE_SIZES[queue]))


_DELAYS: dict[Queue, int] = {"OTEL_BSP": 5000, "OTEL_BLRP": 1000}


def schedule_delay(queue: Queue) -> float:
    """OTEL_{BSP,BLRP}_SCHEDULE_DELAY, in seconds; by default 5 for spans, 1 for log records."""
    return int(os.environ.get(f"{queue}_SCHEDULE_DELAY", _DELAYS[queue])) / 1000


def batch_size(queue: Queue) -> int:
    """OTEL_{BSP,BLRP}_MAX_EXPORT_BATCH_SIZE; by default a quarter of the queue, 2048 at most.

    Four times the specification's 512: a request costs as much CPU time as hundreds of spans.
    """
    chosen = os.environ.get(f"{queue}_MAX_EXPORT_BATCH_SIZE")
    return int(chosen) if chosen else min(2048, max(1, queue_size(queue) // 4))


def _variable(signal: Signal, option: str) -> str:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}"
    return own if os.environ.get(own) else f"OTEL_EXPORTER_OTLP_{option}"


def _per_signal(option: str) -> list[str]:
    own = [f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}" for signal in SIGNALS]
    return [f"OTEL_EXPORTER_OTLP_{option}", *own]


def _bad(name: str, value: str, wrong: _Wrong) -> BadVariable:
    hidden = re.sub(r"(?s)(.*?//)?.*@", r"\1***@", value)  # it may hold a password
    shown = "" if name.endswith("_HEADERS") else f"={hidden!r}"
    return BadVariable(f"{name}{shown} {wrong}: {name}={wrong.good}")


def _number(least: int, unit: str, good: int) -> Check:
    def check(value: str) -> str:
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= _MOST:
            reason = f"is not a whole number{unit}, {least} or more; write for example"
            raise _Wrong(reason, str(good))
        return str(int(value))

    return check


def _one_of(*known: str) -> Check:
    def check(value: str) -> str:
        if value.lower() not in known:
            names = ", ".join(known[:-1])
            raise _Wrong(f"is not known; use {names} or {known[-1]}, for example", known[0])
        return value.lower()

    return check


def _timeout(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MOST:  # NaN is not
        reason = "is not a number of milliseconds, 0 or more; write for example"
        raise _Wrong(reason, "10000")
    return value


def _exporters(value: str) -> str:
    return ",".join(_list(value, ("otlp", "console"), "otlp"))


def _propagators(value: str) -> str:
    good = ",".join(_BUILT_IN_PROPAGATORS)
    names = _list(value, None, good)
    for name in names:
        if name in ("none", *_BUILT_IN_PROPAGATORS):
            continue
        if entry_points(group="opentelemetry_propagator", name=name):
            continue
        if package := _PROPAGATOR_PACKAGES.get(name):
            reason = f"needs the package {package} for {name} (uv add {package}); without it use"
        else:
            known = ", ".join((*_BUILT_IN_PROPAGATORS, *_PROPAGATOR_PACKAGES))
            reason = f"has the unknown {name!r}; known are {known} and none; use for example"
        raise _Wrong(reason, good)
    return ",".join(names)


def _list(value: str, known: Iterable[str] | None, good: str) -> list[str]:
    """The names in a comma-separated list, without repetitions. `none` excludes all others."""
    names = list(dict.fromkeys(name.lower() for name in _parts(value)))
    for name in names:
        if known is not None and name not in (*known, "none"):
            reason = f"has the unknown {name!r}; use {', '.join(known)} or none, for example"
            raise _Wrong(reason, good)
    if not names:
        raise _Wrong("names nothing; use for example", good)
    if "none" in names and len(names) > 1:
        raise _Wrong("combines none with others; use one or the other, for example", good)
    return names


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _attributes(value: str) -> str:
    return ",".join(_parts(value))  # the SDK warns about a trailing comma


def _headers(value: str) -> str:
    for number, pair in enumerate(value.split(","), start=1):
        text = unquote(pair.strip())
        if text and not (_HEADER.fullmatch(pair.strip()) and text.isascii() and text.isprintable()):
            reason = (
                f"is not a list of key=value pairs: pair {number} is malformed. In a value,"
                " percent-encode commas, semicolons, quotes, backslashes and non-ASCII characters;"
                " write for example"
            )
            raise _Wrong(reason, "api-key=secret,x-tenant=acme")
    return value


def _file(value: str) -> str:
    try:
        with Path(value).open("rb"):
            return value
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); name a PEM file, for example"
        raise _Wrong(reason, "/certificates/ca.pem") from None


def _check_endpoint(signal: Signal) -> None:
    name = _variable(signal, "ENDPOINT")
    value = os.environ.get(name)
    if not value:
        return
    grpc = otlp_protocol(signal) == "grpc"
    good = "http://otel-collector:4317" if grpc else "http://otel-collector:4318"
    try:
        if re.search(r"\s", value):
            raise _Wrong("contains a space; write for example", good)
        schemes = _GRPC_SCHEMES if grpc else {"http", "https"}
        scheme, separator, _ = value.partition("://")
        if (separator or not grpc) and scheme.lower() not in schemes:
            raise _Wrong("begins with neither http:// nor https://; write for example", good)
        if separator and scheme.lower().startswith("http"):
            try:
                named = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
            except ValueError:
                named = False
            if not named:
                raise _Wrong("has no valid host and port; write for example", good)
    except _Wrong as wrong:
        raise _bad(name, value, wrong) from None


def _check_pair(signal: Signal) -> None:
    """Check that a key has its certificate. Over HTTP one file may hold both."""
    key, certificate = (_variable(signal, name) for name in ("CLIENT_KEY", "CLIENT_CERTIFICATE"))
    missing = [name for name in (key, certificate) if not os.environ.get(name)]
    if missing == [certificate] or (missing == [key] and otlp_protocol(signal) == "grpc"):
        (other,) = {key, certificate} - {*missing}
        msg = f"{other} also needs {missing[0]}: {missing[0]}=/certificates/client.pem"
        raise BadVariable(msg)


def _check_batch(queue: Queue) -> None:
    name, size = f"{queue}_MAX_EXPORT_BATCH_SIZE", queue_size(queue)
    if batch_size(queue) > size:
        reason = f"is larger than {queue}_MAX_QUEUE_SIZE={size}; write for example"
        raise _bad(name, os.environ[name], _Wrong(reason, str(min(512, size))))


_BOOLEANS = (
    "OTEL_SDK_DISABLED",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
    *_per_signal("INSECURE"),
)
_MILLISECONDS = " of milliseconds"
_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_CHECKS: dict[str, Check] = {
    "OTEL_PROPAGATORS": _propagators,
    "OTEL_RESOURCE_ATTRIBUTES": _attributes,
    "OTEL_LOG_LEVEL": _one_of("info", *(name for name in LOG_LEVELS if name != "info")),
    **{f"OTEL_{signal.upper()}_EXPORTER": _exporters for signal in SIGNALS},
    **dict.fromkeys(_per_signal("PROTOCOL"), _one_of("grpc", "http/protobuf")),
    **dict.fromkeys(_per_signal("COMPRESSION"), _one_of("gzip", "none")),
    **dict.fromkeys(_per_signal("TIMEOUT"), _timeout),
    **dict.fromkeys(_per_signal("HEADERS"), _headers),
    **{name: _file for option in _FILES for name in _per_signal(option)},
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of(
        "cumulative", "delta", "lowmemory"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("trace_based", "always_on", "always_off"),
    "OTEL_METRIC_EXPORT_INTERVAL": _number(1, _MILLISECONDS, 15000),
    "OTEL_METRIC_EXPORT_TIMEOUT": _number(0, _MILLISECONDS, 30000),
    "OTEL_BSP_SCHEDULE_DELAY": _number(1, _MILLISECONDS, 5000),
    "OTEL_BLRP_SCHEDULE_DELAY": _number(1, _MILLISECONDS, 1000),
    **{
        f"{queue}_{option}": _number(least, unit, good)
        for queue in QUEUES
        for option, least, unit, good in (
            ("EXPORT_TIMEOUT", 0, _MILLISECONDS, 30000),
            ("MAX_QUEUE_SIZE", 1, "", 2048),
            ("MAX_EXPORT_BATCH_SIZE", 1, "", 512),
        )
    },
    **dict.fromkeys(_LIMITS, _number(0, "", 128)),
}
