"""docs/adopt.md shows what is tested."""

import pytest

from . import page


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
    words = len(page.PAGE.read_text("utf-8").split())
    assert words < 1500  # 300 a minute
