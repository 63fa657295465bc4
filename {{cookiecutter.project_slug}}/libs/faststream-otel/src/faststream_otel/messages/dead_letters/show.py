"""Dead letters as text for people, and as JSON for programs."""

import json
import shutil
import textwrap
import time
from collections import Counter
from typing import Any

from .ledger import State
from .letter import Letter, Position, readable

INDENT = "      "
MOST_LINES = 4
"""Of a reason, or of a body."""
MOST_KINDS = 5
"""In the summary."""
BODY_CHARACTERS = 2000


class Links:
    """Where traces are shown.

    Args:
        url: An address with `{trace_id}` in it, and perhaps `{age}`: how far back the page has to
            look, as Grafana writes it (`3h`). Empty: not known.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def to(self, trace_id: str, since: float | None = None) -> str:
        """The address of a trace, or else its id; empty for no trace.

        Args:
            since: Unix seconds at which it was there already; default: now.
        """
        if not trace_id or not self._url:
            return trace_id
        age = max(0.0, time.time() - since) if since else 0.0
        hours = f"{int(age // 3600) + 2}h"  # an hour for what came before, one for who looks later
        return self._url.replace("{trace_id}", trace_id).replace("{age}", hours)


def as_text(
    letter: Letter, state: State, links: Links, *, begun: float | None = None, body: bool = False
) -> str:
    """A few lines: what it is, why it was given up, and where its trace is."""
    facts = [str(letter.position), _time(letter)]
    if letter.topic:
        origin = f" {letter.origin}" if letter.origin else ""
        facts.append(f"{clean(letter.topic)}{origin}")
        facts.append(f"{_short(letter.error_type)}{_attempts(letter)}")
    else:
        facts.append("not from a service")
    if letter.truncated:
        facts.append(f"[cut: {_cut(letter)}]")
    if state is not State.OPEN:
        facts.append(f"[{_state(state, begun)}]")
    lines = ["  ".join(facts)]
    if letter.reason:
        lines += _wrapped(letter.reason)
    if body:
        lines += _wrapped(f"headers: {_listed(letter)}" if letter.headers else "no headers")
        told = _decoded(letter.value)
        lines += _wrapped("no body" if told is None else f"body: {told[:BODY_CHARACTERS]}")
    lines.append(INDENT + (_trace(letter, links) or "no trace"))
    return "\n".join(lines)


def as_json(letter: Letter, state: State, links: Links) -> str:
    """One line. Key and body are text, in which what is not UTF-8 is replaced, or null.

    A header is text, null, or `{"base64": …}`; a list of them if its name is repeated.
    """
    origin = letter.origin or Position(0, 0)
    content: dict[str, Any] = {
        "letter": str(letter.position),
        "state": state.value,
        "at": letter.at.isoformat() if letter.at else None,
        "topic": letter.topic or None,
        "partition": origin.partition if letter.origin else None,
        "offset": origin.offset if letter.origin else None,
        "attempts": letter.attempts,
        "error_type": letter.error_type or None,
        "reason": letter.reason or None,
        "trace_id": letter.trace_id or None,
        "trace": _trace(letter, links) or None,
        "key": _decoded(letter.record.key),
        "body": _decoded(letter.value),
        "truncated": letter.truncated or None,
        "body_size": letter.body_size,
        "headers": _headers(letter),
    }
    return json.dumps(content)


class Summary:
    """Counts letters by where they came from and why they were given up."""

    def __init__(self) -> None:
        self._kinds: Counter[tuple[str, str]] = Counter()

    def add(self, letter: Letter) -> None:
        kind = (letter.topic, letter.error_type)
        # Strangers may name anything: what is beyond a thousand kinds is one.
        self._kinds[kind if kind in self._kinds or len(self._kinds) < 1000 else ("", "")] += 1

    @property
    def total(self) -> int:
        return self._kinds.total()

    def __str__(self) -> str:
        common = self._kinds.most_common(MOST_KINDS)
        told = [
            f"{number} x {_short(error)}" + (f" from {clean(topic)}" if topic else "")
            for (topic, error), number in common
        ]
        more = self.total - sum(number for _, number in common)
        return ", ".join([*told, *([f"{more} x others"] if more else [])])


def _state(state: State, begun: float | None) -> str:
    if state not in (State.BEGUN, State.UNCONFIRMED):
        return state.value
    when = f" at {time.strftime('%H:%M:%S', time.gmtime(begun))} UTC" if begun else ""
    return f"replay begun{when}" + (", may have been sent" if state is State.UNCONFIRMED else "")


def _cut(letter: Letter) -> str:
    kept = len(letter.value or b"")
    of_body = f" ({kept} of {letter.body_size} bytes)" if "body" in letter.truncated else ""
    return ", ".join(letter.truncated) + of_body


def _time(letter: Letter) -> str:
    return letter.at.strftime("%Y-%m-%d %H:%M:%S UTC") if letter.at else "no time"


def _attempts(letter: Letter) -> str:
    if letter.attempts is None:
        return ""
    return f", {letter.attempts} attempt{'s' if letter.attempts != 1 else ''}"


def _trace(letter: Letter, links: Links) -> str:
    return links.to(letter.trace_id, letter.at.timestamp() if letter.at else None)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _headers(letter: Letter) -> dict[str, Any]:
    """By name; of one that is repeated a list."""
    found: dict[str, list[Any]] = {}
    for name, value in letter.headers:
        found.setdefault(name, []).append(readable(value))
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def _listed(letter: Letter) -> str:
    return ", ".join(
        f"{name}: {json.dumps(readable(value), ensure_ascii=False)}"
        for name, value in letter.headers
    )


def _short(error_type: str) -> str:
    return clean(error_type.rpartition(".")[2]) or "an error"


def _wrapped(text: str) -> list[str]:
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        clean(" ".join(text.split())),
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        max_lines=MOST_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    )


def clean(text: str) -> str:
    """Without what would move the cursor: this comes from anywhere."""
    return "".join(character if character.isprintable() else "·" for character in text)
