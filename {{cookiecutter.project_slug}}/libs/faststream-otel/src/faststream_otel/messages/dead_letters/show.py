"""Formats dead letters as text for people, and as JSON for programs."""

import json
import shutil
import textwrap
import time
from collections import Counter
from typing import Any

from ...telemetry.values import decoded
from .dead_letter import DeadLetter, moment
from .headers import readable
from .states import State

INDENT = "      "
MOST_LINES = 4
"""The maximum number of lines of a reason, or of a body."""
MOST_KINDS = 5
"""The maximum number of kinds in the summary."""
BODY_CHARACTERS = 2000


class Links:
    """Links to traces.

    Args:
        url: An address that contains `{trace_id}`, and optionally `{age}`: how far back the page
            must search, in Grafana's format (`3h`). Empty if unknown.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def to(self, trace_id: str, since: float | None = None) -> str:
        """The address of a trace, or its id if the address is unknown; empty for no trace.

        Args:
            since: A time at which the trace existed, in Unix seconds. Default: now.
        """
        if not trace_id or not self._url:
            return trace_id
        age = max(0.0, time.time() - since) if since else 0.0
        hours = f"{int(age // 3600) + 2}h"  # the trace began earlier, and people look later
        return self._url.replace("{trace_id}", trace_id).replace("{age}", hours)


def as_text(
    dead_letter: DeadLetter,
    state: State,
    links: Links,
    *,
    begun: float | None = None,
    body: bool = False,
) -> str:
    """A few lines: the id, the origin, the reason, and a link to the trace."""
    facts = [dead_letter.id, _time(dead_letter)]
    if dead_letter.channel:
        facts.append(clean(f"{dead_letter.channel} {dead_letter.message_id}".rstrip()))
        facts.append(f"{_short(dead_letter.error_type)}{_attempts(dead_letter)}")
    else:
        facts.append("not from a service")
    if dead_letter.truncated:
        facts.append(f"[cut: {_cut(dead_letter)}]")
    if state is not State.OPEN:
        facts.append(f"[{_state(state, begun)}]")
    lines = ["  ".join(facts)]
    if dead_letter.reason:
        lines += _wrapped(dead_letter.reason)
    if body:
        headers = _listed(dead_letter)
        lines += _wrapped(f"headers: {headers}" if headers else "no headers")
        text = _decoded(dead_letter.body)
        lines += _wrapped("no body" if text is None else f"body: {text[:BODY_CHARACTERS]}")
    lines.append(INDENT + (_trace(dead_letter, links) or "no trace"))
    return "\n".join(lines)


def as_json(dead_letter: DeadLetter, state: State, links: Links) -> str:
    """One line. Key and body are text, with replacement characters for invalid UTF-8, or null.

    A header is text, null, or `{"base64": …}`, or a list of these if its name is repeated.
    """
    content: dict[str, Any] = {
        "id": dead_letter.id,
        "state": state.value,
        "at": dead_letter.at.isoformat() if dead_letter.at else None,
        "channel": dead_letter.channel or None,
        "message_id": dead_letter.message_id or None,
        "attempts": dead_letter.attempts,
        "error_type": dead_letter.error_type or None,
        "reason": dead_letter.reason or None,
        "trace_id": dead_letter.trace_id or None,
        "trace": _trace(dead_letter, links) or None,
        "key": _decoded(dead_letter.record.key),
        "body": _decoded(dead_letter.body),
        "truncated": dead_letter.truncated or None,
        "body_size": dead_letter.body_size,
        "headers": _headers(dead_letter),
    }
    return json.dumps(content)


class Summary:
    """Counts dead letters by channel and error."""

    def __init__(self) -> None:
        self._kinds: Counter[tuple[str, str]] = Counter()

    def add(self, dead_letter: DeadLetter) -> None:
        kind = (dead_letter.channel, dead_letter.error_type)
        # Anybody may publish any kind: those after the first thousand count as one.
        self._kinds[kind if kind in self._kinds or len(self._kinds) < 1000 else ("", "")] += 1

    @property
    def total(self) -> int:
        return self._kinds.total()

    def __str__(self) -> str:
        common = self._kinds.most_common(MOST_KINDS)
        kinds = [
            f"{number} x {_short(error)}" + (f" from {clean(channel)}" if channel else "")
            for (channel, error), number in common
        ]
        more = self.total - sum(number for _, number in common)
        return ", ".join([*kinds, *([f"{more} x others"] if more else [])])


def _state(state: State, begun: float | None) -> str:
    if state not in (State.BEGUN, State.UNCONFIRMED):
        return state.value
    at = moment(begun or 0)
    when = f" at {at:%H:%M:%S} UTC" if at else ""
    return f"replay begun{when}" + (", may have been sent" if state is State.UNCONFIRMED else "")


def _cut(dead_letter: DeadLetter) -> str:
    kept = len(dead_letter.body or b"")
    size = f" ({kept} of {dead_letter.body_size} bytes)" if "body" in dead_letter.truncated else ""
    return ", ".join(dead_letter.truncated) + size


def _time(dead_letter: DeadLetter) -> str:
    return dead_letter.at.strftime("%Y-%m-%d %H:%M:%S UTC") if dead_letter.at else "no time"


def _attempts(dead_letter: DeadLetter) -> str:
    if dead_letter.attempts is None:
        return ""
    return f", {dead_letter.attempts} attempt{'s' if dead_letter.attempts != 1 else ''}"


def _trace(dead_letter: DeadLetter, links: Links) -> str:
    return links.to(dead_letter.trace_id, dead_letter.at.timestamp() if dead_letter.at else None)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else decoded(value)


def _headers(dead_letter: DeadLetter) -> dict[str, Any]:
    """Header values by name; a list if a name is repeated."""
    found: dict[str, list[Any]] = {}
    for name, value in dead_letter.headers:
        found.setdefault(name, []).append(readable(value))
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}


def _listed(dead_letter: DeadLetter) -> str:
    return ", ".join(
        f"{name}: {json.dumps(readable(value), ensure_ascii=False)}"
        for name, value in dead_letter.headers
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
    """Replace unprintable characters: untrusted text could control the terminal."""
    return "".join(character if character.isprintable() else "·" for character in text)
