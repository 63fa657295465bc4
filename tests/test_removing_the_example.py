"""docs/removing-the-example.md is true: this follows its steps, and adds its first service."""

import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bakery import Bakery
from ports import free_ports
from tools import docker_compose, tool

PACKAGE = "src/order_flow"
ANSWERS = {"deployment": "kubernetes"}  # its files are added to all others
# What the document leaves to the user's taste, or says that it keeps orders as sample data.
MAY_NAME_ORDERS = (
    *("README.md", "deploy/kubernetes/README.md", "docs/"),
    *("libs/", "observability/prometheus/tests/"),
)
BUILT = ("local", "production", "monitoring")

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
            rf"^    # {re.escape(path)}\n((?:    (?!# src).*\n|\n)+)", self._text, re.MULTILINE
        )
        return textwrap.dedent(block[1]).strip("\n") + "\n" if block else ""

    def command(self) -> list[str]:
        """The command in the section "Your first service"."""
        (found,) = re.findall(r"^    (make service .*)$", self._text, re.MULTILINE)
        return shlex.split(found)


def replaced(first: str, last: str) -> Edit:
    """What is shown takes the place of the lines from the one to the other."""
    lines = re.compile(rf"^{first}.*?^{last}[^\n]*\n", re.MULTILINE | re.DOTALL)

    def edit(text: str, shown: str) -> str:
        assert len(lines.findall(text)) == 1, (first, last)
        return lines.sub(lambda _: shown, text)

    return edit


def without(*parts: str) -> Edit:
    """Each of these patterns goes."""

    def edit(text: str, shown: str) -> str:
        for part in parts:
            assert len(re.findall(part, text, re.MULTILINE)) == 1, part
            text = re.sub(part, "", text, flags=re.MULTILINE)
        return text

    return edit


def documents(*names: str) -> Edit:
    """Only the YAML documents with these names stay, and the comment at the top."""

    def edit(text: str, shown: str) -> str:
        kept = [
            one
            for one in text.split("---\n")
            if any(f"\n  name: {name}\n" in one for name in names)
        ]
        assert len(kept) == len(names)
        comment = "".join(re.findall(r"\A(?:#.*\n)+", text))
        return comment + "---\n".join(one.removeprefix(comment) for one in kept)

    return edit


KUBERNETES = "deploy/kubernetes"
SERVICES = "orders|payments|shipping|notifications"
CHANNELS = r"orders\.placed|payments\.\w+|shipments\.dispatched"
EDITS: dict[str, Edit] = {
    f"{PACKAGE}/contracts.py": lambda text, shown: shown,
    f"{PACKAGE}/channels.py": replaced("ORDERS", "CHANNELS"),
    "compose.yaml": without(r"^  orders:\n(.*\n)*?(?=  # For commands by hand)"),
    f"{KUBERNETES}/base/services.yaml": without(r"^---\n(.*\n)*"),
    f"{KUBERNETES}/overlays/local/autoscaling.yaml": without(r"^---\n(.*\n)*"),
    f"{KUBERNETES}/components/keda/scaled-objects.yaml": without(r"^apiVersion(.*\n)*"),
    f"{KUBERNETES}/overlays/production/kustomization.yaml": without(r"^replicas:\n  - .*\n"),
    f"{KUBERNETES}/overlays/production/broker/topics.yaml": documents("dead-letters"),
    f"{KUBERNETES}/overlays/production/broker/users.yaml": lambda text, shown: re.sub(
        rf".*\bname: ({CHANNELS}), .*\n.*\n", "", documents("lag", "tools")(text, shown)
    ),
    f"{KUBERNETES}/overlays/production/broker/kustomization.yaml": lambda text, shown: re.sub(
        rf"^  - target: .* name: ({SERVICES})\}}\n(    .*\n)+", "", text, flags=re.MULTILINE
    ),
    f"{KUBERNETES}/kubernetes.mk": without(r"orders:8000 "),
    ".env.example": without(r"^#ORDERS_PORT=.*\n"),
    "pyproject.toml": without(
        r"^#.*\nentrance = .*\n", r"^#.*\nnext_step = .*\n", r', "example\.py"'
    ),
    "Makefile": replaced("# --- The example", "# --- End of the example"),
    ".github/workflows/ci.yml": without(r"^      - run: make order\n"),
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
    commands = {"make order", "make load", "make demo", "example.py"}
    names = {*services, *contracts, "ORDERS_PORT", "order_id", *commands}
    return (names | {name for channel in channels for name in channel}) - {"Event"}


@pytest.fixture(scope="module")
def baked(bakery: Bakery) -> Path:
    return bakery.bake(ANSWERS, bakery.home / "with the example")


def remove_the_example(project: Path) -> None:
    """Do all that the document says, its first service left out."""
    document = Document(project)
    for path in document.deleted():
        (project / path).unlink()
    for path, edit in EDITS.items():
        file = project / path
        file.write_text(edit(file.read_text("utf-8"), document.shown(path)), "utf-8")
    shutil.rmtree(project / "tests/__pycache__", ignore_errors=True)


def make_service(bakery: Bakery, project: Path, *command: str) -> str:
    """Run `make service`, add what it says to the modules, and return what it printed."""
    done = subprocess.run(
        command, cwd=project, env=bakery.environment(), capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in done.stdout.split("\nAdd to ")[1:]:
        name, _, rest = part.partition(",")
        block = textwrap.dedent(re.match(r".*\n\n((?:    .*\n)+)", rest)[1])  # type: ignore[index]
        file = project / name
        text = file.read_text("utf-8")
        if name.endswith("channels.py"):
            constant = block.partition(" = ")[0]
            text = re.sub(r"^(?=\n?CHANNELS\b)", block, text, count=1, flags=re.MULTILINE)
            text = re.sub(r"(CHANNELS\b.* = \(.*?)(,?)\)", rf"\1\2, {constant},)", text, count=1)
            text = text.replace("(, ", "(").replace(",,", ",")
        else:
            text += f"\n\n{block}"
        file.write_text(text, "utf-8")
    return done.stdout


@pytest.fixture(scope="module")
def emptied(bakery: Bakery) -> Path:
    """The default project after all that the document says was done."""
    project = bakery.bake(ANSWERS, bakery.home / "without the example")
    remove_the_example(project)
    make_service(bakery, project, *Document(project).command())
    bakery.run(project, "make", "format")
    return project


def text_files(project: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(project.rglob("*")):
        name = str(path.relative_to(project))
        made = {".venv", "__pycache__", "uv.lock", ".env", ".pytest_cache", ".dev"}
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
        if not name.startswith(MAY_NAME_ORDERS)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert left == []


def test_lint_is_clean(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, "make", "lint")


def test_its_tests_pass(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, "make", "test")


def test_compose_accepts_it(emptied: Path, bakery: Bakery) -> None:
    bakery.run(emptied, *docker_compose("Compose reads what is left"), "config", "--quiet")


@pytest.mark.parametrize("overlay", BUILT)
def test_kustomize_accepts_it(emptied: Path, overlay: str) -> None:
    """With the first service, where it is written down by itself."""
    kubectl = tool("kubectl", "Kustomize builds what is left")
    done = subprocess.run(
        [kubectl, "kustomize", f"{KUBERNETES}/overlays/{overlay}"],
        cwd=emptied,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert ("\n  name: stock\n" in done.stdout) == (overlay != "monitoring")


def test_it_runs(emptied: Path, bakery: Bakery) -> None:
    """`make dev` says where the one service is once that is ready, and ends on SIGTERM."""
    (port,) = free_ports(1)
    said = bakery.make_dev(emptied, {"STOCK_PORT": str(port)})
    assert f"stock          http://127.0.0.1:{port}\n" in said
    assert "Traceback" not in said
