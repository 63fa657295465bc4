"""docs/adopt.md shows what is tested."""

import re

import pytest

from . import page

PROSE = re.DOTALL | re.MULTILINE


@pytest.mark.parametrize(("path", "code"), page.shown(), ids=[path for path, _ in page.shown()])
def test_the_code_of_the_page_is_the_code_that_is_tested(path: str, code: str) -> None:
    """Whole lines of it, in a row; `# …` stands for what is left out."""
    text = (page.RECIPES / path).read_text("utf-8")
    for part in code.split("# …\n"):
        assert part.strip("\n") in text


def test_each_recipe_is_shown() -> None:
    recipes = {path.parent.name for path in page.RECIPES.glob("*/service.py")}
    assert {path.partition("/")[0] for path, _ in page.shown()} == recipes


def test_it_is_read_in_five_minutes() -> None:
    """At 250 words a minute; readers look up code, they don't read it."""
    text = re.sub(
        r"^```.*?^```$|^    .*$|<!--.*?-->", "", page.PAGE.read_text("utf-8"), flags=PROSE
    )
    assert len(text.split()) < 1250
