"""`python -m devtools.new_service.sample <package> <contract>`: makes up one for a test, as JSON.

A process of its own, since it runs the project's contracts as they are now.
"""

import json
import re
import sys
from collections import Counter
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ValidationError

Path = tuple[int | str, ...]

TRIES: tuple[Any, ...] = (
    1, 100, 0.5, {}, [], "FI", "EUR", "2030-01-31T12:00:00Z", "2030-01-31", "12:00:00",
    "00000000-0000-4000-8000-000000000000", "ada@example.org", "https://example.org", "1",
)  # fmt: skip
"""What fields may want that take no plain text."""


def sample(model: type[BaseModel]) -> dict[str, Any] | None:
    """Make one up with no more than it needs; None if that takes more than guessing."""
    made: dict[str, Any] = {}
    tried: Counter[Path] = Counter()
    while True:
        try:
            model.model_validate_json(json.dumps(made))
        except ValidationError as error:
            for one in error.errors():
                path = one["loc"]
                if not path or tried[path] > len(TRIES):
                    return None
                _put(made, path, _guess(path, tried[path], one.get("ctx", {}).get("expected", "")))
                tried[path] += 1
        else:
            return made


def _guess(path: Path, number: int, expected: str) -> Any:
    """What the field could be; `expected` is how pydantic lists a Literal's or an Enum's values."""
    if literal := re.match("'([^']*)'", expected):
        return literal[1]
    word = re.sub("_id$", "", str(path[-1])).replace("_", "-")
    return (f"{word}-1", *TRIES)[number]


def _put(made: Any, path: Path, value: Any) -> None:
    for step in path[:-1]:
        if not isinstance(made, dict):
            return
        made = made.setdefault(str(step), {})
    if isinstance(made, dict):
        made[str(path[-1])] = value


def main() -> int:
    package, contract = sys.argv[1:]
    contracts = import_module(f"{package}.contracts")
    model = getattr(contracts, contract)
    fits = isinstance(model, type) and issubclass(model, contracts.Event)
    print(json.dumps({"event": fits, "sample": sample(model) if fits else None}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
