"""Adds a service from the templates in this folder, and says what to add to shared modules."""

import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..project import Project, UserError

# What a service needs in each of these files, if the project has it: the template to append.
KUBERNETES = {
    "deploy/kubernetes/base/services.yaml": "kubernetes-services.yaml.txt",
    "deploy/kubernetes/overlays/local/autoscaling.yaml": "kubernetes-autoscaling.yaml.txt",
}
SERVICE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
CHANNEL = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+)*")
CONSTANT = re.compile(r'^([A-Z][A-Z0-9_]*) = "(.+)"', re.MULTILINE)
# Deliveries, addresses, orders; but neither an address nor a status.
PLURALS = (
    (re.compile("(?<=.)ies$"), "y"),
    (re.compile("(?<=ss|sh|ch)es$|(?<=x)es$"), ""),
    (re.compile("(?<=[^us])s$"), ""),
)
IN_COMPOSE = re.compile(r"^  ([\w.-]+):", re.MULTILINE)
# Where a service names the class of a channel's messages: publisher, decorator, subscriber.
PUBLISHERS = (r"publisher\(%s, (\w+)\)", r"publisher\(%s\)\n(?:@.*\n)*(?:async )?def [^>]*-> (\w+)")
TOOLS = re.compile(r"(^  #.*\n)*^  tools:\n", re.MULTILINE)
SUBSCRIBER = r"subscriber\(%s\b.*\)\n(?:@.*\n)*(?:async )?def \w+\(\s*\w+: (?:list\[)?(\w+)"
# Values to try for a field that takes no plain text; the last one stands for "not found".
SAMPLES = (1, 100, 0.5, "FI", "EUR", "2030-01-31T12:00:00Z", "2030-01-31", (), ...)


class Channel(NamedTuple):
    """A channel, its constant in channels.py, and the class of its messages."""

    name: str
    constant: str
    contract: str


def add_service(project: Project, name: str, consumes: str, publishes: str, batch: bool) -> str:
    """Write the service's module, test and deployment; return the remaining steps.

    Args:
        consumes: A channel or its constant. Empty: the last one in channels.py.
        publishes: A channel that no service publishes to yet. Empty: none.

    Raises:
        UserError: A name is bad, or is taken. Nothing was written.
    """
    module = name.replace("-", "_")
    service_path = project.source / "services" / f"{module}.py"
    test_path = project.root / "tests" / f"test_{module}.py"
    _check_name(project, name, service_path, test_path)
    compose_path = project.root / "compose.yaml"
    compose = compose_path.read_text("utf-8")
    # Before `tools` and the comment above it; without `tools`, as the first service.
    place = re.search(TOOLS, compose) or re.search(r"(?<=\nservices:\n)", compose)
    if "&service" not in compose or place is None:
        raise UserError("compose.yaml lacks `services:`, or the anchor &service that they share.")
    last = next(reversed(_channels(project).values()), f"{name}.requested")
    source = _channel(project, consumes or last)
    target = _channel(project, publishes) if publishes else None
    if target and (target == source or _contract_of(project, target.constant, PUBLISHERS)):
        raise UserError(
            f"--publishes {publishes}: the service consumes it, or another service already"
            " publishes to it. Name a new channel, such as invoices.issued."
        )
    used = [source, target] if target else [source]

    event = _class(project, "Event")
    fields = event.model_fields.items() if event else ()
    required = [key for key, field in fields if field.is_required()]
    subject = required[0] if required else ""
    edge = f'    assert ("process {source.name}", "send {target.name}") in' if target else ""
    values = {
        "name": name,
        "module": module,
        "variable": module.upper(),
        "package": project.package,
        "channel": source.name,
        "constant": source.constant,
        "contract": source.contract,
        "target_constant": target.constant if target else "",
        "target_contract": target.contract if target else "",
        "constants": ", ".join(sorted(one.constant for one in used)),
        "contracts": ", ".join(sorted({one.contract for one in used})),
        "copied": ", ".join(f"{key}=event.{key}" for key in required),
        "subject": subject.removesuffix("_id").replace("_", " ").capitalize() or "Event",
        "id": f"event.{subject}" if subject else "event",
        "sample": repr(_sample(_class(project, source.contract) or event)),
        "relation": "links" if batch else "edges",
        "also": f"{edge} trace.edges()\n" if target else "",
    }
    kind = ("batch" if batch else "single") + ("-publishing" if target else "")
    test_path.parent.mkdir(exist_ok=True)
    service_path.write_text(_text(f"{kind}.py.txt", values), "utf-8")
    test_path.write_text(_text("test.py.txt", values), "utf-8")
    entry, at = _text("compose.yaml.txt", values), place.start()
    compose_path.write_text(compose[:at] + entry + compose[at:], "utf-8")
    manifests = [path for path in KUBERNETES if (project.root / path).exists()]
    for path in manifests:
        with (project.root / path).open("a", encoding="utf-8") as manifest:
            manifest.write(_text(KUBERNETES[path], values))
    _format(project, service_path, test_path)

    test = test_path.relative_to(project.root)
    lines = [f"new      {service_path.relative_to(project.root)}", f"new      {test}",
             *(f"changed  {path}" for path in ("compose.yaml", *manifests)),
             *_left_to_do(project, used, bool(event))]  # fmt: skip
    if "Ellipsis" in values["sample"]:
        lines.append(f"\nReplace each Ellipsis in {test} with a valid value.")
    if manifests:
        lines.append('\ndocs/kubernetes.md, "A new service", says what it needs in production.')
    return "\n".join((*lines, _text("next.txt", values)))


def _left_to_do(project: Project, used: list[Channel], has_event: bool) -> Iterator[str]:
    folder, channels = f"src/{project.package}", _channels(project)
    base = "Event" if has_event else "BaseModel"
    for one in used:
        if one.constant not in channels:
            yield f"\nAdd to {folder}/channels.py, and {one.constant} to CHANNELS there:\n"
            yield f'    {one.constant} = "{one.name}"'
        if _class(project, one.contract) is None:
            yield f"\nAdd to {folder}/contracts.py, with your own fields:\n"
            yield f'    class {one.contract}({base}):\n        """A message of {one.name}."""'


def _check_name(project: Project, name: str, *paths: Path) -> None:
    compose = [*project.root.glob("compose*.yaml"), *project.root.glob("*/compose*.yaml")]
    taken = {one for path in compose for one in IN_COMPOSE.findall(path.read_text("utf-8"))}
    there = next((path for path in paths if path.exists()), None)
    fault = ""
    if not SERVICE.fullmatch(name) or keyword.iskeyword(name) or len(name) > 40:
        fault = "cannot name a service: use at most 40 lower-case letters and digits, with -"
        fault += " between words, and no Python keyword"
    elif name in {*taken, "metrics"}:  # the alias by which Prometheus finds all services
        fault = "is taken: a Compose file has a service of that name"
    elif there:
        fault = f"is taken: {there.relative_to(project.root)} exists"
    if fault:
        raise UserError(f"NAME={name} {fault}. A good one: NAME=invoicing")


def _channels(project: Project) -> dict[str, str]:
    """The channels by their constants."""
    return dict(CONSTANT.findall((project.source / "channels.py").read_text("utf-8")))


def _channel(project: Project, option: str) -> Channel:
    """The channel with that name or constant, or a new one."""
    for constant, name in _channels(project).items():
        if option in {constant, name}:
            known = _contract_of(project, constant, (*PUBLISHERS, SUBSCRIBER))
            return Channel(name, constant, known or _new_contract(name))
    if not CHANNEL.fullmatch(option):
        raise UserError(
            f"{option} cannot name a channel: use lower-case letters and digits, with . or -"
            " between words. A good one: invoices.issued"
        )
    return Channel(option, re.sub("[.-]", "_", option).upper(), _new_contract(option))


def _new_contract(channel: str) -> str:
    """A message of `invoices.issued` is an InvoiceIssued."""
    subject, *others = re.split("[.-]", channel)
    for plural, singular in PLURALS:
        if plural.search(subject):
            subject = plural.sub(singular, subject)
            break
    return "".join(word.capitalize() for word in (subject, *others))


def _contract_of(project: Project, constant: str, patterns: tuple[str, ...]) -> str:
    """The class of a channel's messages; empty if no service names it."""
    services = sorted((project.source / "services").glob("[!_]*.py"))
    text = "\n".join(path.read_text("utf-8") for path in services)
    found = (re.search(pattern % constant, text) for pattern in patterns)
    return next((match[1] for match in found if match), "")


def _class(project: Project, contract: str) -> type[BaseModel] | None:
    found = getattr(import_module(f"{project.package}.contracts"), contract, None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _sample(model: type[BaseModel] | None) -> dict[str, Any]:
    """A message for a test, with a valid value for each required field."""
    made: dict[str, Any] = {}
    for name, field in model.model_fields.items() if model else ():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            made[name] = _sample(kind)
        elif field.is_required():
            for value in (f"{name.removesuffix('_id')}-1", *get_args(kind), *SAMPLES):
                made[name] = value
                try:
                    TypeAdapter(Annotated[kind, field]).validate_python(value)
                except ValidationError:
                    continue
                break
    return made


def _text(name: str, values: dict[str, str]) -> str:
    return Template(files(__package__).joinpath(name).read_text("utf-8")).substitute(values)


def _format(project: Project, *paths: Path) -> None:
    """Like `make format`, since names change the length of lines. Does nothing without ruff."""
    for arguments in (["check", "--fix", "--select", "I"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", *map(str, paths)]
        subprocess.run(command, cwd=project.root, capture_output=True, check=False)
