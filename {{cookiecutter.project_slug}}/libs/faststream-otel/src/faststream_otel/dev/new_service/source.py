"""The project's own modules: what they say, and their text with something added."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import project
from ..project import UserError

LISTED = "CHANNELS"
DEAD_LETTERS = "DEAD_LETTERS"
EVENT = "Event"
SETTINGS = "Settings"


class Module:
    """A Python file, read without running it."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(root))
        try:
            self.text = path.read_text("utf-8")
            self.tree = ast.parse(self.text)
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}.") from error
        except SyntaxError as error:
            raise UserError(f"{self.name}:{error.lineno} is no Python: {error.msg}.") from error

    def bound(self) -> set[str]:
        """The names that it binds, imported ones too."""
        names: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names.update((one.asname or one.name).partition(".")[0] for one in node.names)
        return names | self.assigned().keys()

    def assigned(self) -> dict[str, ast.expr]:
        """What it assigns to names."""
        found: dict[str, ast.expr] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            else:
                continue
            if node.value is not None:
                found |= {one.id: node.value for one in targets if isinstance(one, ast.Name)}
        return found

    def class_(self, name: str) -> ast.ClassDef:
        """Raises UserError if there is none of this name."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
        raise UserError(f"{self.name} has no class {name}, which every service here leans on.")

    def with_lines(self, at: int, lines: str) -> str:
        """Its text with these lines before the one of this number, counted from 1."""
        present = self.text.splitlines(keepends=True)
        return "".join((*present[: at - 1], lines, *present[at - 1 :]))


class Channels(Module):
    """channels.py: the channels that are created, as constants and in a list."""

    @property
    def constants(self) -> dict[str, str]:
        """Topics by the names of their constants, in the order of the file."""
        return {
            name: value.value
            for name, value in self.assigned().items()
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        }

    @property
    def listed(self) -> list[str]:
        """The constants of those that are created, less the dead letters."""
        names = [one.id for one in self._list().elts if isinstance(one, ast.Name)]
        return [name for name in names if name in self.constants and name != DEAD_LETTERS]

    def adding(self, new: Mapping[str, str]) -> str:
        """Its text with these channels, by the names of their constants."""
        if not new:
            return self.text
        line = self._line_of(DEAD_LETTERS if DEAD_LETTERS in self.constants else LISTED)
        constants = "".join(f'{name} = "{topic}"\n' for name, topic in new.items())
        lines = self.text.encode().splitlines(keepends=True)
        self._list_too(lines, list(new))
        lines.insert(line - 1, constants.encode())
        return b"".join(lines).decode()

    def _list_too(self, lines: list[bytes], new: list[str]) -> None:
        """Put constants into the list, before the dead letters."""
        elements = self._list().elts
        last = next(
            (one for one in elements if isinstance(one, ast.Name) and one.id == DEAD_LETTERS), None
        )
        if last is None:
            raise UserError(f"{self.name}: {LISTED} does not hold {DEAD_LETTERS}, which it has to.")
        before = [one for one in elements if one.lineno == last.lineno and one is not last]
        alone = not before and self._list().lineno != last.lineno
        separator = ",\n" + " " * last.col_offset if alone else ", "
        line = lines[last.lineno - 1]
        added = "".join(f"{name}{separator}" for name in new).encode()
        lines[last.lineno - 1] = line[: last.col_offset] + added + line[last.col_offset :]

    def _list(self) -> ast.Tuple | ast.List:
        value = self.assigned().get(LISTED)
        if not isinstance(value, ast.Tuple | ast.List):
            raise UserError(
                f"{self.name} has no {LISTED} = (…, {DEAD_LETTERS}): a tuple of all channels that"
                " are created."
            )
        return value

    def _line_of(self, name: str) -> int:
        return self.assigned()[name].lineno


class Contracts(Module):
    """contracts.py: what travels over the channels."""

    @property
    def event_id(self) -> str:
        """The field of every event that says what it is about."""
        for node in self.class_(EVENT).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.value is None
            ):
                return node.target.id
        raise UserError(
            f"{self.name}: the class {EVENT} has no field without a default that says what an event"
            " is about, such as item_id: str."
        )

    def adding(self, new: Mapping[str, str]) -> str:
        """Its text with these classes, by their names; each with its docstring."""
        classes = (f'\n\nclass {name}({EVENT}):\n    """{doc}"""\n' for name, doc in new.items())
        return self.text.rstrip() + "\n" + "".join(classes) if new else self.text


class Settings(Module):
    """settings.py: what may differ between environments."""

    @property
    def fields(self) -> set[str]:
        return {node.target.id for node in self._fields() if isinstance(node.target, ast.Name)}

    def adding(self, new: Mapping[str, str], doc: str) -> str:
        """Its text with these fields: what follows the name, and one docstring for each."""
        if not new:
            return self.text
        body = self.class_(SETTINGS).body
        last = max(body.index(node) for node in self._fields())
        end = body[last]
        if last + 1 < len(body) and isinstance(body[last + 1], ast.Expr):  # its docstring
            end = body[last + 1]
        lines = "".join(f'    {name}: {what}\n    """{doc}"""\n' for name, what in new.items())
        assert end.end_lineno
        return self.with_lines(end.end_lineno + 1, lines)

    def _fields(self) -> list[ast.AnnAssign]:
        found = [node for node in self.class_(SETTINGS).body if isinstance(node, ast.AnnAssign)]
        if not found:
            raise UserError(f"{self.name}: the class {SETTINGS} has no fields.")
        return found


class Services:
    """services/: who sends what, and who takes it."""

    def __init__(self, folder: Path, root: Path) -> None:
        paths = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
        self.commands = [path.stem.replace("_", "-") for path in paths]
        self._modules = [Module(path, root) for path in paths]

    def contract_of(self, constant: str) -> str | None:
        """Name the class of what travels over a channel, if any service says so."""
        sent, taken = [], []
        for module in self._modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call) and _declares(node, "publisher", constant):
                    sent += [one.id for one in node.args[1:2] if isinstance(one, ast.Name)]
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    for call in _calls(node.decorator_list):
                        if _declares(call, "publisher", constant):
                            sent += _class_in(node.returns)
                        elif _declares(call, "subscriber", constant):
                            taken += _class_in(node.args.args[0].annotation)
        return next(iter(sent + taken), None)

    def are_sending(self, constant: str) -> bool:
        """Whether any service publishes to a channel."""
        nodes = (node for module in self._modules for node in ast.walk(module.tree))
        return any(
            isinstance(node, ast.Call) and _declares(node, "publisher", constant) for node in nodes
        )


def _calls(nodes: list[ast.expr]) -> Iterator[ast.Call]:
    return (node for node in nodes if isinstance(node, ast.Call))


def _declares(call: ast.Call, method: str, constant: str) -> bool:
    """Whether it is `<service>.<method>(<constant>, …)`."""
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr == method
        and bool(call.args)
        and isinstance(call.args[0], ast.Name)
        and call.args[0].id == constant
    )


def _class_in(annotation: ast.expr | None) -> list[str]:
    """The class that an annotation names, also as that of a list's items."""
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.slice
    return [annotation.id] if isinstance(annotation, ast.Name) else []


def in_format(text: str, path: Path, package: str = "") -> str:
    """The text as `make format` would leave it in this file, which need not be there yet.

    Args:
        package: Given where imports may have to be sorted.

    Raises:
        UserError: ruff is missing, or does not understand the text.
    """
    # ruff takes a module that is not there for somebody else's.
    ours = f"lint.isort.known-first-party = ['{package}']"
    sort = ["check", "--fix", "--select", "I", "--config", ours]
    for arguments in ([sort] if package else []) + [["format"]]:
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", path, "-"],
            cwd=project.ROOT,
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise UserError(f"ruff cannot format {path.name}: {done.stderr.strip()}")
        text = done.stdout
    return text
