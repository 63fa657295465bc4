"""The pages of a baked project name only what is there: files, tests, variables, volumes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from matrix import TEMPLATE

# What FastStream's page on tracing names, and the two things beyond it.
OF_THE_PAGE = [
    "first -> second -> third",
    "TracerProvider",
    "TelemetryMiddleware",
    "gRPC",
    "HTTP",
    "opentelemetry-exporter-otlp",
    "opentelemetry-exporter-jaeger",
    "InMemorySpanExporter",
    "Jaeger",
    "Zipkin",
    "Tempo",
    "Context propagation",
    "CurrentSpan",
    "Meter provider",
    "Baggage",
]
TRACING_PAGE = "docs/faststream-tracing.md"
# `path/to/file.py::Class.method`; of the template where it says so.
REFERENCE = re.compile(r"`((?:template:)?[\w./-]+\.\w+|\.env\.example)(?:::([\w.]+))?`")


def rows(project: Path) -> list[list[str]]:
    """The cells of each row of the page's tables, but for the heads."""
    lines = (project / TRACING_PAGE).read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0] not in {"On the page", "Thing", "---"}]


def located(project: Path, name: str) -> Path:
    """The file that a page means by this name."""
    if name.startswith("template:"):
        return TEMPLATE / name.removeprefix("template:")
    (package,) = (path.parent for path in (project / "src").glob("*/telemetry"))
    return next((root / name for root in (project, package) if (root / name).is_file()), Path(name))


def defined(tree: ast.AST, symbol: str) -> bool:
    """Whether a module, or a class in it, defines this."""
    first, _, rest = symbol.partition(".")
    for node in getattr(tree, "body", ()):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found = node.name == first
            case ast.Assign():
                found = any(isinstance(one, ast.Name) and one.id == first for one in node.targets)
            case _:
                found = False
        if found:
            return not rest or defined(node, rest)
    return False


def wrong(project: Path, text: str) -> Iterator[str]:
    """What is named in a text and is not there."""
    for name, symbol in REFERENCE.findall(text):
        path = located(project, name)
        if not path.is_file():
            yield f"no file {name}"
        elif symbol and not defined(ast.parse(path.read_text("utf-8")), symbol):
            yield f"no {symbol} in {name}"


def test_the_tracing_page_names_what_there_is(project: Path) -> None:
    assert [
        f"{row[0]}: {what}" for row in rows(project) for what in wrong(project, "|".join(row))
    ] == []


def test_a_wrong_name_is_noticed(project: Path) -> None:
    good = "`telemetry/providers.py::Telemetry.close` `tests/unit/conftest.py::exporter`"
    bad = (
        "`telemetry/provider.py` `telemetry/providers.py::Telemetry.end`"
        " `template:tests/test_docs.py::test_nothing`"
    )
    assert list(wrong(project, good)) == []
    assert list(wrong(project, bad)) == [
        "no file telemetry/provider.py",
        "no Telemetry.end in telemetry/providers.py",
        "no test_nothing in template:tests/test_docs.py",
    ]


def test_each_thing_of_the_tracing_page_is_somewhere_and_shown_by_a_test(project: Path) -> None:
    table = rows(project)
    assert [one for one in OF_THE_PAGE if not any(one in row[0] for row in table)] == []
    for thing, place, shown in table:
        assert place, thing
        tests = [symbol for _, symbol in REFERENCE.findall(shown) if symbol.startswith("test_")]
        assert tests, thing
