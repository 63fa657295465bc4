"""The sets of answers to bake: as few as cover every value of every option."""

import json
from itertools import product
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
OPTIONS: dict[str, list[str]] = {
    name: values
    for name, values in QUESTIONS.items()
    if isinstance(values, list) and not name.startswith("_")
}

Answers = dict[str, str]


def pairs() -> list[Answers]:
    """Every broker with every trace backend, for checks that are quick.

    With Kubernetes, which only adds to the others: test_overlays.py.
    """
    options = ("broker", "trace_backend")
    return [
        {**dict(zip(options, values, strict=True)), "deployment": "kubernetes"}
        for values in product(*(OPTIONS[option] for option in options))
    ]


def matrix() -> list[Answers]:
    """The defaults first; each further row has every option's next value."""
    rows = max(map(len, OPTIONS.values()))
    return [
        {option: values[row % len(values)] for option, values in OPTIONS.items()}
        for row in range(rows)
    ]
