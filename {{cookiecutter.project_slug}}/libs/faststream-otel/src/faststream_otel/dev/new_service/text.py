"""The text of a new service and of its test. It goes through ruff, so its lines may be long."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import names

NAMES = frozenset({"CurrentSpan", "EVENT", "Service", "Settings"})
"""What no channel and no contract may be called, for the modules below have names for it."""


@dataclass(frozen=True)
class Channel:
    """A channel, the constant that names it, and the class of what travels over it."""

    topic: str
    constant: str
    contract: str


@dataclass(frozen=True)
class Service:
    """A service to write down.

    Args:
        event_id: The field of every event that says what it is about.
        sample: What the test sends it.
        settings: Its own, with the default of each.
    """

    package: str
    name: str
    consumes: Channel
    publishes: Channel | None
    batch: bool
    event_id: str
    sample: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """What the events are about, in a word."""
        return self.event_id.removesuffix("_id").replace("_", " ")

    @property
    def attribute(self) -> str:
        """The attribute of spans that says so."""
        return self.event_id.replace("_id", ".id")

    def variable(self, setting: str) -> str:
        """Name the environment variable of one of its settings."""
        return self.field(setting).upper()

    def field(self, setting: str) -> str:
        """Name it in the settings of all services."""
        return f"{names.module(self.name)}_{setting}"


def handlers(service: Service) -> str:
    """Write the module in services/."""
    consumes, publishes = service.consumes, service.publishes
    channels = ", ".join({one.constant for one in (consumes, publishes) if one})
    contracts = ", ".join({one.contract for one in (consumes, publishes) if one})
    span = "" if service.batch else "from faststream.opentelemetry import CurrentSpan\n"
    declared = (
        f"publisher = service.publisher({publishes.constant}, {publishes.contract})\n"
        if publishes
        else ""
    )
    return f'''\
"""Handles what comes over {consumes.topic}."""

import logging

{span}
from ..channels import {channels}
from ..contracts import {contracts}
from ..service import Service

logger = logging.getLogger(__name__)

service = Service("{service.name}")
{declared}app = service.app


{_batch_handler(service) if service.batch else _handler(service)}'''


def _handler(service: Service) -> str:
    return f'''\
@service.subscriber({service.consumes.constant})
async def handle(event: {service.consumes.contract}, span: CurrentSpan) -> None:
    """Handle one; it may come again, and then the effect must be the same."""
    span.set_attribute("{service.attribute}", event.{service.event_id})
    logger.info("{service.subject.capitalize()} %s handled", event.{service.event_id})
{_send(service, "    ")}'''


def _batch_handler(service: Service) -> str:
    return f'''\
@service.subscriber({service.consumes.constant}, batch=True)
async def handle(events: list[{service.consumes.contract}]) -> None:
    """Handle many at a time; each may come again, and then the effect must be the same."""
    for event in events:
        logger.info("{service.subject.capitalize()} %s handled", event.{service.event_id})
{_send(service, "        ")}'''


def _send(service: Service, indent: str) -> str:
    if not service.publishes:
        return ""
    made = f"{service.publishes.contract}({service.event_id}=event.{service.event_id})"
    return f"{indent}await service.send(publisher, {made})\n"


def test(service: Service) -> str:
    """Write the module in tests/unit/."""
    consumes, publishes = service.consumes, service.publishes
    package = service.package
    channels = ", ".join({one.constant for one in (consumes, publishes) if one})
    brokers = "service, reader" if publishes else "service"
    reads = _reader(publishes) if publishes else ""
    imports = [
        f"from {package}.channels import {channels}",
        f"from {package}.services.{names.module(service.name)} import logger, service",
    ]
    if publishes:
        imports += [
            f"from {package}.contracts import {publishes.contract}",
            f"from {package}.service import Service",
        ]
    if service.settings:
        imports += [f"from {package}.settings import Settings"]
    read = (
        f"    assert read == [{publishes.contract}({service.event_id}="
        f'EVENT["{service.event_id}"])]\n'
        if publishes
        else ""
    )
    return f'''\
"""What {service.name} does with a message, and the trace of it, without a broker."""

import pytest

{chr(10).join(imports)}

from ..memory import in_memory
from ..spans import context, named, tree

EVENT = {dict(service.sample)!r}
"""What comes over {consumes.topic}."""
{reads}

async def test_a_message_is_handled_in_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    async with in_memory({brokers}) as exporter:
        await service.broker.publish(EVENT, {consumes.constant})

    spans = exporter.get_finished_spans()
    assert tree(spans) == {_tree(service)!r}
{read}    process = named(spans, "process {consumes.topic}")
{_cause(service)}    (record,) = [one for one in caplog.records if one.name == logger.name]
    assert record.getMessage() == {_said(service)!r}
    assert vars(record)["trace_id"] == f"{{context(process).trace_id:032x}}"


async def test_what_cannot_be_read_ends_in_the_dead_letters() -> None:
    async with in_memory({brokers}) as exporter:
        await service.broker.publish("of another shape", {consumes.constant})

    spans = exporter.get_finished_spans()
    letter = named(spans, "send dead-letters")
    process = named(spans, "process {consumes.topic}")
    assert letter.parent == process.context
{"".join(_setting_test(service, name, value) for name, value in service.settings.items())}'''


def _reader(publishes: Channel) -> str:
    return f"""
reader = Service("reader")
read: list[{publishes.contract}] = []


@reader.subscriber({publishes.constant})
async def keep(event: {publishes.contract}) -> None:
    read.append(event)
"""


def _tree(service: Service) -> dict[str, Any]:
    sent, process = f"send {service.consumes.topic}", f"process {service.consumes.topic}"
    below: dict[str, Any] = {}
    if service.publishes:
        topic = service.publishes.topic
        below = {f"send {topic}": {f"process {topic}": {}}}
    return {sent: {}, process: below} if service.batch else {sent: {process: below}}


def _said(service: Service) -> str:
    return f"{service.subject.capitalize()} {service.sample[service.event_id]} handled"


def _cause(service: Service) -> str:
    """What leads from the message's trace to the handler's span."""
    if service.batch:
        return f"""\
    cause = named(spans, "send {service.consumes.topic}")
    assert [link.context.span_id for link in process.links] == [context(cause).span_id]
"""
    return f"""\
    assert (process.attributes or {{}})["{service.attribute}"] == EVENT["{service.event_id}"]
"""


def _setting_test(service: Service, name: str, default: Any) -> str:
    other = _other(default)
    same = "is" if isinstance(other, bool) else "=="
    return f'''

def test_{name}_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("{service.variable(name)}", {str(other)!r})
    assert Settings().{service.field(name)} {same} {other!r}
'''


def _other(default: Any) -> Any:
    """A value that is not the default."""
    if isinstance(default, bool):
        return not default
    return f"other {default}".strip() if isinstance(default, str) else default + 1
