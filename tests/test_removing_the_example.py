"""docs/removing-the-example.md is true: what it says is done here, and a service of one's own put
in the example's place."""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bakery import Bakery
from ports import free_ports
from tools import docker_compose

PACKAGE = "src/order_flow"
# What the document says is left to the user's taste, or keeps orders as sample data.
MAY_TELL_OF_ORDERS = ("README.md", "docs/", "tests/", "observability/prometheus/tests/")

Edit = Callable[[str, str], str]
"""Takes a file's text and what the document shows of it; returns the new text."""


class Document:
    """What the document says, read from it, so that it and these tests cannot drift apart."""

    def __init__(self, project: Path) -> None:
        self._text = (project / "docs/removing-the-example.md").read_text("utf-8")

    def deleted(self) -> list[str]:
        """The paths in the section "Delete"."""
        section = self._text.partition("## Delete\n")[2].partition("\n## ")[0]
        return re.findall(r"^    (\S+)$", section, re.MULTILINE)

    def changed(self) -> list[str]:
        """The files in the table "Change"."""
        return re.findall(r"^\| `(\S+)` \|", self._text, re.MULTILINE)

    def shown(self, path: str) -> str:
        """The block that begins with this path in a comment; empty if there is none."""
        block = re.search(
            rf"^    # {re.escape(path)}\n((?:    .*\n|\n)+)", self._text, re.MULTILINE
        )
        return textwrap.dedent(block[1]).strip("\n") + "\n" if block else ""


def replaced(first: str, last: str) -> Edit:
    """What is shown takes the place of the lines from the one to the other."""
    lines = re.compile(rf"^{first}.*?^{last}[^\n]*\n", re.MULTILINE | re.DOTALL)

    def edit(text: str, shown: str) -> str:
        assert len(lines.findall(text)) == 1, (first, last)
        return lines.sub(lambda _: shown, text)

    return edit


def substituted(old: str, new: str) -> Edit:
    def edit(text: str, shown: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


def services_of_compose(text: str, shown: str) -> str:
    services = textwrap.indent(shown, "  ") + "\n"
    return replaced("  orders:", "  notifications:\n    <<:.*\n    command:")(text, services)


EDITS: dict[str, Edit] = {
    f"{PACKAGE}/contracts.py": lambda text, shown: shown,
    f"{PACKAGE}/messaging.py": substituted("event.order_id", "event.item_id"),
    f"{PACKAGE}/channels.py": replaced("ORDERS", "CHANNELS"),
    "compose.yaml": services_of_compose,
    ".env.example": substituted("ORDERS_PORT", "STOCK_PORT"),
    "devtools/project.py": replaced("ENTRANCE =", "NEXT_STEP ="),
    "Makefile": replaced("# --- The example's", "# --- End of the example's"),
    ".github/workflows/ci.yml": substituted("      - run: make order\n", ""),
    "README.md": lambda text, shown: text,
}


def names_of_the_example(project: Path) -> set[str]:
    """Its services, contracts, channels and the port: whatever has a name of its own."""
    services = {path.stem for path in (project / PACKAGE / "services").glob("[!_]*.py")}
    contracts = re.findall(
        r"^class (\w+)", (project / PACKAGE / "contracts.py").read_text(), re.MULTILINE
    )
    channels = re.findall(
        r'^(\w+) = "(.+)"$', (project / PACKAGE / "channels.py").read_text(), re.MULTILINE
    )
    return (
        {*services, *contracts, "ORDERS_PORT", "order_id", "make order", "make load", "make demo"}
        | {name for channel in channels for name in channel}
    ) - {"Event", "DEAD_LETTERS", "dead-letters"}


@pytest.fixture(scope="module")
def baked(bakery: Bakery) -> Path:
    return bakery.bake({}, bakery.home / "with the example")


def remove_the_example(project: Path) -> None:
    """Do all that the document says, and put its example of a service in the place of ours."""
    document = Document(project)
    for path in document.deleted():
        if path.endswith("/"):
            shutil.rmtree(project / path)
        else:
            (project / path).unlink()
    for path, edit in EDITS.items():
        file = project / path
        file.write_text(edit(file.read_text("utf-8"), document.shown(path)), "utf-8")
    service = f"{PACKAGE}/services/stock.py"
    (project / service).write_text(document.shown(service), "utf-8")


@pytest.fixture(scope="module")
def emptied(bakery: Bakery) -> Path:
    """The default project after all that the document says was done."""
    project = bakery.bake({}, bakery.home / "without the example")
    remove_the_example(project)
    return project


def text_files(project: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(project.rglob("*")):
        name = str(path.relative_to(project))
        made = {".venv", "__pycache__", "uv.lock", ".env", ".pytest_cache", ".devtools"}
        if path.is_file() and not made.intersection(path.relative_to(project).parts):
            yield name, path.read_text("utf-8")


def test_the_document_names_every_file_that_changes(baked: Path) -> None:
    assert Document(baked).changed() == list(EDITS)


def test_nothing_of_the_example_is_left(baked: Path, emptied: Path) -> None:
    names = names_of_the_example(baked)
    assert {"orders", "OrderPlaced", "ORDERS", "orders.placed"} <= names
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")
    left = [
        f"{name}:{number}: {line.strip()}"
        for name, text in text_files(emptied)
        if not name.startswith(MAY_TELL_OF_ORDERS)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert left == []


def test_lint_is_clean(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, "make", "lint")


def test_the_tests_that_stay_pass(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, "make", "test")


def test_compose_accepts_it(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, *docker_compose("Compose reads what is left"), "config", "--quiet")


def test_it_runs(emptied: Path, bakery: Bakery) -> None:
    """`make dev` says where the one service is, once that is ready, and ends when it is told to."""
    (port,) = free_ports(1)
    said = bakery.make_dev(emptied, {"STOCK_PORT": str(port)})
    assert f"stock          http://127.0.0.1:{port}\n" in said
    assert "See what it takes and sends: /asyncapi (Ctrl-C ends this run)\n" in said
    assert "Traceback" not in said
