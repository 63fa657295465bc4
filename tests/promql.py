"""Reads the names in a PromQL query, without parsing the rest of its grammar."""

import re
from collections.abc import Iterator

TOKEN = re.compile(r'"[^"]*"|\[[^\]]*\]|\$\w+|[a-zA-Z_:][\w:]*|\d[\w.]*|[{}()]|[=!~<>]+|\S')
NAME = re.compile(r"[a-zA-Z_:][\w:]*")
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset"}
# Labels that a query makes itself: label_replace, label_join, count_values.
MADE = re.compile(
    r'"(\w+)", "[^"]*", "\w*", "[^"]*"\)'
    r'|"(\w+)", "[^"]*"(?:, "\w+")+\)'
    r'|count_values by \([^)]*\) \("(\w+)"'
)


def names(query: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that a query asks for."""
    made = {label for labels in MADE.findall(query) for label in labels}
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for name, is_metric in _names(TOKEN.findall(query)):
        found[is_metric].add(name)
    return found[True], found[False] - made


def _names(tokens: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each name, and whether it is a metric's rather than a label's."""
    among_labels = False
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token in GROUPINGS or token == "{":
            among_labels = True
        elif token in {")", "}"}:
            among_labels = False
        elif NAME.fullmatch(token) and token not in OPERATORS:
            if among_labels:
                yield token, False
            elif following != "(" and following not in GROUPINGS:
                yield token, True
