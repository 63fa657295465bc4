"""What a new service takes: the files that it adds and those that it changes."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import project
from ..project import UserError
from . import compose, names, text
from .source import DEAD_LETTERS, EVENT, Channels, Contracts, Module, Services, Settings, in_format

VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
RESERVED = ("COMPOSE_", "DOCKER_", "OTEL_", "PYTHON", "UV_")
"""How variables begin that others read: Compose, Docker, OpenTelemetry's SDK, Python, uv."""


@dataclass(frozen=True)
class Options:
    """What is asked for; `consumes` empty: what the flow ends with so far."""

    name: str
    consumes: str = ""
    publishes: str = ""
    batch: bool = False
    settings: Sequence[str] = ()
    """As name=default."""


@dataclass
class Plan:
    """All that will be written, and what has to be said about it."""

    service: text.Service
    new: dict[Path, str] = field(default_factory=dict)
    changed: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Write everything, or nothing."""
        before = {path: path.read_text("utf-8") for path in self.changed}
        try:
            for path, content in (self.new | self.changed).items():
                path.write_text(content, "utf-8")
        except OSError as error:
            for path in self.new:
                path.unlink(missing_ok=True)
            for path, content in before.items():
                with suppress(OSError):
                    path.write_text(content, "utf-8")
            raise UserError(
                f"{error.filename} cannot be written: {error.strerror}. Nothing was changed."
            ) from error


def plan(options: Options, root: Path = project.ROOT) -> Plan:
    """Check what is asked for, and make a plan of it. Nothing is written yet.

    Raises:
        UserError: A name is not good, something is there already, or a file is not as it should be.
    """
    package = project.package(root)
    source = root / "src" / package
    containers = compose.Compose(root / "compose.yaml", root)
    services = Services(source / "services", root)
    names.check_service(
        options.name,
        containers.project,
        compose.taken(root) | {*services.commands},
    )
    new = {
        kind: root / path / f"{prefix}{names.module(options.name)}.py"
        for kind, path, prefix in (
            ("handlers", source / "services", ""), ("test", "tests/unit", "test_")
        )
    }  # fmt: skip
    for path in new.values():
        if path.exists():
            raise UserError(
                f"{path.relative_to(root)} is there already, and nothing is overwritten: remove it,"
                " or choose another name."
            )

    drafted = _Draft(options, root, package, source, services)
    service = drafted.service()
    made = Plan(service, notes=drafted.notes)
    made.new = {
        new["handlers"]: in_format(text.handlers(service), new["handlers"], package),
        new["test"]: in_format(text.test(service), new["test"], package),
    }
    if project.ENTRANCE not in {*services.commands, options.name}:
        made.notes.append(
            f"There is no service {project.ENTRANCE}: let ENTRANCE in devtools/project.py name the"
            " one where work comes in, and give that a port in compose.yaml."
        )
    variables = {service.variable(name): value for name, value in service.settings.items()}
    _check_variables(variables, root)
    made.changed = {
        containers.path: containers.adding(options.name, variables, services.commands),
        **drafted.changed(service),
    }
    if variables:
        example = root / ".env.example"
        shown = {name: _in_dotenv(value) for name, value in variables.items()}
        made.changed[example] = compose.example_adding(
            example.read_text("utf-8"), shown, f"Of the service {options.name}."
        )
    return made


class _Draft:
    """Finds out what the service is made of."""

    def __init__(
        self, options: Options, root: Path, package: str, source: Path, services: Services
    ) -> None:
        self.notes: list[str] = []
        self._options = options
        self._root = root
        self._package = package
        self._services = services
        self._channels = Channels(source / "channels.py", root)
        self._contracts = Contracts(source / "contracts.py", root)
        self._settings = Settings(source / "settings.py", root)
        self._event_id = self._contracts.event_id
        self._new_channels: dict[str, str] = {}
        self._new_contracts: dict[str, str] = {}

    def service(self) -> text.Service:
        settings = dict(self._setting(one) for one in self._options.settings)
        consumes, sample = self._consumed()
        return text.Service(
            package=self._package,
            name=self._options.name,
            consumes=consumes,
            publishes=self._published(consumes) if self._options.publishes else None,
            batch=self._options.batch,
            event_id=self._event_id,
            sample=sample,
            settings=settings,
        )

    def changed(self, service: text.Service) -> dict[Path, str]:
        """The modules that have to know of it, in the format that they were in."""
        fields = {
            service.field(name): f"{type(value).__name__} = {value!r}"
            for name, value in service.settings.items()
        }
        if clash := self._settings.fields & fields.keys():
            raise UserError(f"{self._settings.name} has a setting {', '.join(clash)} already.")
        texts: list[tuple[Module, str]] = [
            (self._channels, self._channels.adding(self._new_channels)),
            (self._contracts, self._contracts.adding(self._new_contracts)),
            (self._settings, self._settings.adding(fields, f"Of the service {service.name}.")),
        ]
        return {
            module.path: _as_it_was(module, changed)
            for module, changed in texts
            if changed != module.text
        }

    def _consumed(self) -> tuple[text.Channel, Mapping[str, Any]]:
        """The channel that the service listens to, and what a message there may be."""
        option = self._options.consumes
        if not option:
            listed = self._channels.listed
            if listed:
                option = self._channels.constants[listed[-1]]
                self.notes.append(
                    f"{option} is the last channel in {self._channels.name}; for another one:"
                    f' make service NAME={self._options.name} ARGS="--consumes …"'
                )
            else:
                option = f"{self._options.name}.requested"
        constant = self._known(option)
        if constant is None:
            made = self._declare("--consumes", option)
            present = [self._channels.constants[one] for one in self._channels.listed]
            self.notes.append(
                f"{option} is a new channel, to which nobody publishes yet; there are"
                f" {', '.join(present) or 'no others'}."
            )
            return made, self._event()
        topic = self._channels.constants[constant]
        contract, sample = self._travelling(topic, constant)
        if sample is None:
            self.notes.append(
                f"No message could be made up for a test of {contract}: the handler takes any"
                f" {EVENT}; change that in both."
            )
            contract, sample = EVENT, self._event()
        return text.Channel(topic, constant, contract), sample

    def _published(self, consumes: text.Channel) -> text.Channel:
        option = self._options.publishes
        constant = self._known(option)
        if option in {consumes.topic, consumes.constant}:
            raise UserError(f"A service that publishes to {option} what it consumes has no end.")
        if constant is None:
            return self._declare("--publishes", option)
        if not self._services.are_sending(constant):  # it has been waited for
            topic = self._channels.constants[constant]
            contract, sample = self._travelling(topic, constant)
            if sample is not None and sample.keys() == {self._event_id}:
                return text.Channel(topic, constant, contract)
        known = self._services.contract_of(constant)
        raise UserError(
            f"--publishes {option}: that channel is there already"
            f"{f', for {known}' if known else ''}. Name a new one; to publish to this one, add a"
            " publisher by hand."
        )

    def _travelling(self, topic: str, constant: str) -> tuple[str, Mapping[str, Any] | None]:
        """The class of what travels over a channel that is there, and one made up, if it can be."""
        contract = self._services.contract_of(constant)
        if contract is None:  # nobody here sends it or takes it yet
            contract = names.contract(topic)
            if contract not in self._contracts.bound():
                self._new_contracts[contract] = _travels(topic)
                return contract, self._event()
        return contract, self._sample(contract, topic)

    def _known(self, option: str) -> str | None:
        """The constant of a channel that is there, given its topic or that constant."""
        for constant, topic in self._channels.constants.items():
            if option in {constant, topic}:
                if constant == DEAD_LETTERS:
                    raise UserError(
                        f"{topic} holds what other services gave up; it is seen to with"
                        " `make dead-letters`, `make replay` and `make discard`."
                    )
                return constant
        return None

    def _declare(self, option: str, topic: str) -> text.Channel:
        """A new channel, and the class of what will travel over it."""
        names.check_channel(option, topic)
        made = text.Channel(topic, names.constant(topic), names.contract(topic))
        for name, present, module in (
            (made.constant, self._new_channels, self._channels),
            (made.contract, self._new_contracts, self._contracts),
        ):
            if name in {*present, *module.bound(), *text.NAMES}:
                raise UserError(
                    f"{option} {topic} would be {name} in {module.name}, and something else is"
                    " called so: choose another channel name."
                )
        self._new_channels[made.constant] = topic
        self._new_contracts[made.contract] = _travels(topic)
        return made

    def _event(self) -> Mapping[str, Any]:
        """What any event may be; a class that was just made has nothing besides."""
        sample: Mapping[str, Any] | None = self._sample(EVENT, "every channel")
        if sample is None:
            raise UserError(
                f"No {EVENT} of {self._contracts.name} could be made up for a test: its fields take"
                " no plain text, number, date or the like."
            )
        return sample

    def _sample(self, contract: str, topic: str) -> Any:
        source = str(self._root / "src")
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.sample", self._package, contract],
            cwd=project.ROOT,
            env=os.environ | {"PYTHONPATH": source},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{contract} of {self._contracts.name} cannot be used: {reason}")
        told = json.loads(done.stdout)
        if not told["event"]:
            raise UserError(
                f"{contract}, which travels over {topic}, is no {EVENT} of {self._contracts.name}:"
                " a handler for it has to be written by hand."
            )
        sample = told["sample"]
        return sample if sample and self._event_id in sample else None

    def _setting(self, option: str) -> tuple[str, Any]:
        name, equals, default = option.partition("=")
        # No two readers of .env agree on how these two are written in quotes.
        plain = default.isprintable() and not {"'", "\\"} & {*default}
        if not names.SETTING.fullmatch(name) or not equals or not plain:
            raise UserError(
                f"--setting {option} is no setting with its default: use lower-case letters, digits"
                " and _, then = and a value without ' and \\. A good one: --setting due_days=30"
            )
        try:
            value = json.loads(default)
        except ValueError:
            value = default
        number = isinstance(value, int | float) and math.isfinite(value)
        return name, value if number else default


def _check_variables(variables: Collection[str], root: Path) -> None:
    """Raise UserError if a setting's variable means something already."""
    files = [root / ".env.example", *root.glob("compose*.yaml")]
    known = {name for file in files for name in VARIABLE.findall(file.read_text("utf-8"))}
    for name in variables:
        if name in known or name.startswith(RESERVED):
            raise UserError(
                f"A setting of that name would be the environment variable {name}, which means"
                " something else already: choose another name for the setting."
            )


def _in_dotenv(value: object) -> str:
    """As .env wants it, in single quotes where anything might have a meaning there."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if re.fullmatch(r"[\w.,:/@+-]*", value) else f"'{value}'"


def _travels(topic: str) -> str:
    return f"What travels over {topic}."


def _as_it_was(module: Module, changed: str) -> str:
    """Formatted if the module was; otherwise its lines are left alone."""
    if in_format(module.text, module.path) == module.text:
        return in_format(changed, module.path)
    return changed
