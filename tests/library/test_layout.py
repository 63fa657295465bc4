"""The picture in the library's docs/layout.md shows its imports, each of them and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import faststream_otel

PACKAGE = Path(faststream_otel.__file__).parent
PAGE = PACKAGE.parents[1] / "docs/layout.md"
PICTURED = {
    "cli",
    "dev",
    "http",
    "kafka",
    "messages",
    "nats",
    "rabbitmq",
    "service",
    "settings",
    "telemetry",
    "testing",
}


def part(module: str) -> str:
    """What a module is in the picture: its folder, or `service` for those beside service.py."""
    top = module.split(".")[0]
    return top if top in PICTURED else "service"


def runtime(node: ast.AST) -> Iterator[ast.ImportFrom]:
    """The imports that are made, which those for type checkers are not."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from runtime(child)


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, from the package on."""
    folders = path.relative_to(PACKAGE).parts[:-1]
    for node in runtime(ast.parse(path.read_text("utf-8"))):
        if node.level:
            start = folders[: len(folders) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join((*start, name)) for name in names)


def test_the_picture_is_true() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", PAGE.read_text("utf-8"), re.MULTILINE))
    made = {
        (part(".".join(path.relative_to(PACKAGE).with_suffix("").parts)), part(module))
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"  # gives names from where they are, on use
        for module in imports(path)
    }
    assert {edge for edge in made if edge[0] != edge[1]} == drawn
