"""Requests to services on this machine."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

# No proxy: whatever is asked here listens on 127.0.0.1.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """`body` is what JSON it held, or None."""

    status: int
    body: Any


def get(url: str, timeout: float = 2.0) -> Answer:
    """Ask with GET; raises OSError when nobody answers within so many seconds."""
    return _ask(urllib.request.Request(url, headers={"Accept": "application/json"}), timeout)


def post(url: str, body: Any, timeout: float = 10.0) -> Answer:
    """Send JSON with POST; raises OSError when nobody answers within so many seconds."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return _ask(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout)


def status(url: str) -> int | None:
    """Ask with GET for the status alone; None when nobody answers."""
    try:
        return get(url).status
    except OSError:
        return None


def _ask(request: urllib.request.Request, timeout: float) -> Answer:
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return Answer(response.status, _json(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _json(error.read()))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
