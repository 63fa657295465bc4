"""`make trace` reads the store that was chosen at baking; tests/library/dev has the rest."""

from pathlib import Path

from matrix import Answers


def test_the_store_is_the_one_that_was_chosen(project: Path, answers: Answers) -> None:
    for name in (".env", ".env.example"):
        lines = (project / name).read_text("utf-8").splitlines()
        assert f"TRACE_BACKEND={answers['trace_backend']}" in lines
