"""compose.yaml and .env.example: what they say, and their text with something added."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ..project import UserError

KEY = re.compile(r"  ([\w.-]+):\s*(#.*)?$")
COMMAND = re.compile(r"""    command: \[["']?([\w.-]+)["']?\]""")
SECTION = "# --- The services"


class Compose:
    """compose.yaml, whose services have `<<: *service` and a command."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(root))
        try:
            self.text = path.read_text("utf-8")
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}.") from error
        self._lines = [f"{line}\n" for line in self.text.splitlines()]

    @property
    def project(self) -> str:
        """What Compose calls the project, unless it is told otherwise."""
        named = re.search(r"^name:\s*[\"']?([\w-]+)", self.text, re.MULTILINE)
        return named[1] if named else self.path.parent.name

    @property
    def services(self) -> list[str]:
        return [name for name, _, _ in self._blocks()]

    def adding(self, name: str, variables: Collection[str], beside: Collection[str]) -> str:
        """Its text with a service.

        Args:
            variables: Of its own, handed through from .env or the shell.
            beside: Commands of services: it comes after the last of them.
        """
        for anchor in ("service", *(["environment"] if variables else [])):
            if not re.search(rf"^[\w -]+: &{anchor}\s*(#.*)?$", self.text, re.MULTILINE):
                raise UserError(
                    f"{self.name} has no mapping with the anchor &{anchor}, which has all that"
                    " services have in common."
                )
        block = f'  {name}:\n    <<: *service\n    command: ["{name}"]\n'
        if variables:
            block += "    environment:\n      <<: *environment\n"
            block += "".join(f"      {variable}:\n" for variable in variables)
        end = None
        for _, first, last in self._blocks():
            lines = self._lines[first:last]
            if any((own := COMMAND.match(line)) and own[1] in beside for line in lines):
                end = last
        if end is None:  # the first one
            end = self._start()
            return "".join((*self._lines[:end], f"{block}\n", *self._lines[end:]))
        return "".join((*self._lines[:end], f"\n{block}", *self._lines[end:]))

    def _start(self) -> int:
        for number, line in enumerate(self._lines):
            if re.match(r"services:\s*(#.*)?$", line):
                return number + 1
        raise UserError(f"{self.name} has no services: at the beginning of a line.")

    def _blocks(self) -> Iterator[tuple[str, int, int]]:
        """The name of each service, and its lines from and to, without what follows it."""
        start = self._start()
        keys = []
        for number, line in enumerate(self._lines[start:], start):
            if line.strip() and not line.startswith((" ", "#")):
                break
            if key := KEY.match(line):
                keys.append((key[1], number))
        else:
            number = len(self._lines)
        ends = [first for _, first in keys[1:]] + [number]
        for (name, first), end in zip(keys, ends, strict=True):
            while not self._lines[end - 1].startswith("    "):  # blank, or a comment on the next
                if end - 1 == first:
                    break
                end -= 1
            yield name, first, end


def taken(root: Path) -> set[str]:
    """Name all services of the project's compose files."""
    paths = [*root.glob("compose*.yaml"), *root.glob("observability/compose*.yaml")]
    files = [Compose(path, root) for path in paths]
    return {name for file in files if "\nservices:" in f"\n{file.text}" for name in file.services}


def example_adding(text: str, variables: Mapping[str, str], comment: str) -> str:
    """The text of .env.example with these variables, at the end of what concerns the services."""
    if not variables:
        return text
    lines = [f"{line}\n" for line in text.splitlines()]
    begun = False
    end = len(lines)
    for number, line in enumerate(lines):
        if begun and line.startswith("# --- "):
            end = number
            break
        begun |= line.startswith(SECTION)
    while end and not lines[end - 1].strip():
        end -= 1
    added = "".join(f"#{name}={value}\n" for name, value in variables.items())
    return "".join((*lines[:end], f"# {comment}\n", added, *lines[end:]))
