"""docs/adopt.md shows what is tested."""

import ast
import re
import sys

import pytest

from . import page

PROSE = re.DOTALL | re.MULTILINE


@pytest.mark.parametrize(("path", "code"), page.shown(), ids=[path for path, _ in page.shown()])
def test_the_code_of_the_page_is_the_code_that_is_tested(path: str, code: str) -> None:
    """Whole lines of it, in a row; `# …` stands for what is left out, except between imports."""
    text = (page.RECIPES / path).read_text("utf-8")
    for part in re.split(r"# …\n|(?<=\n)(?=import |from )", code):
        assert part.strip("\n") in text


def test_what_the_code_uses_is_imported_where_it_is_shown() -> None:
    """In its section, or in the page's first example: nobody has to guess where a name is from."""
    first: set[str] = set()
    for section in page.shown_by_section():
        known = first.copy()
        for path, code in section:
            if path.endswith(".py"):
                whole = imports((page.RECIPES / path).read_text("utf-8"))
                known |= {line for line, _ in whole.values() if line in code}
                known |= {name for name, (line, _) in whole.items() if line in known}
                missing = {
                    name for name, (_, bound) in whole.items() if bound in used(code)
                } - known
                assert missing == set(), path
                first = first or known.copy()


def imports(code: str) -> dict[str, tuple[str, str]]:
    """By full name, what the code imports of others: its statement, and its name in the code."""
    found: dict[str, tuple[str, str]] = {}
    for one in ast.parse(code).body:
        if isinstance(one, ast.Import | ast.ImportFrom):
            source = str(ast.get_source_segment(code, one))
            module = f"{one.module}." if isinstance(one, ast.ImportFrom) else ""
            found |= {module + name.name: (source, name.name) for name in one.names}
    return {
        name: of
        for name, of in found.items()
        if name.partition(".")[0] not in sys.stdlib_module_names
    }


def used(code: str) -> set[str]:
    """The words of the code, without those of its imports."""
    return set(re.findall(r"\w+", re.sub("^(import|from) .*", "", code, flags=re.MULTILINE)))


def test_each_recipe_is_shown() -> None:
    recipes = {path.parent.name for path in page.RECIPES.glob("*/service.py")}
    assert {path.partition("/")[0] for path, _ in page.shown()} == recipes


def test_it_is_read_in_five_minutes() -> None:
    """At 250 words a minute; readers look up code, they don't read it."""
    text = re.sub(
        r"^```.*?^```$|^    .*$|<!--.*?-->", "", page.PAGE.read_text("utf-8"), flags=PROSE
    )
    assert len(text.split()) < 1250
