"""docs/adopt.md, read for the tests: what a recipe installs, and the code that it shows."""

import re
import shlex
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}/libs/faststream-otel"
FOLDER = "./libs/faststream-otel"  # where the page has it
PAGE = LIBRARY / "docs/adopt.md"
RECIPES = Path(__file__).parent

_SHOWN = re.compile(r"<!-- tests/adopt/(\S+) -->\n+```\w+\n(.*?)```\n", re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def sections() -> dict[str, str]:
    """By heading, in its order; a section has what follows up to the next heading."""
    parts = re.split(r"^##+ (.*)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shown() -> list[tuple[str, str]]:
    """Each file of a recipe with what the page shows of it."""
    return _SHOWN.findall(PAGE.read_text("utf-8"))


def shown_by_section() -> list[list[tuple[str, str]]]:
    return [found for section in sections().values() if (found := _SHOWN.findall(section))]


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of a section."""
    return [code for found, code in _BLOCK.findall(sections()[section]) if found == language]


def requirements(section: str) -> tuple[str, ...]:
    """What a section has its reader install; without a line of its own, the page's first line."""
    lines = re.findall(r"^pip install (.*)$", sections()[section], re.MULTILINE)
    lines = lines or re.findall(r"^pip install (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return tuple(shlex.split(lines[0], comments=True))


def variables(section: str) -> dict[str, str]:
    """The environment variables that a section sets."""
    pairs = re.findall(r"^([A-Z_]+)=(.*)$", "\n".join(blocks(section, "sh")), re.MULTILINE)
    return {name: shlex.split(value, comments=True)[0] for name, value in pairs}
