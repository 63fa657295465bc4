"""The header field Idempotency-Key: a request that is sent again is answered as the first time.

It follows draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel, WithJsonSchema

MAX_KEY_CHARACTERS = 255
KEY_PATTERN = r'^([!#-+\--~]+|"([ !#-\[\]-~]|\\["\\])+")$'
"""A string of structured fields (RFC 8941, 3.3.3), or a text without quotes, space and comma."""


Answer = TypeVar("Answer")


class BadKey(ValueError):
    """The header field has no valid key; says what a valid one looks like."""


class KeyReused(Exception):
    """The key stands for another request."""


class KeyInUse(Exception):
    """The first request with the key has not been answered yet."""


class KeyStore(Protocol):
    """Where keys are remembered. Replicas that share one share what it promises.

    One outside the process must do each step atomically, and let go of a claim whose process died.
    An answer is what the route returns: such a store writes it down, and makes it anew.
    """

    async def claim(self, key: str, fingerprint: str) -> Any | None:
        """Return the answer to this request, or None for the caller to find it and `release`.

        Raises:
            KeyReused: The key came with another fingerprint before.
            KeyInUse: Somebody else has claimed it.
        """

    async def release(self, key: str, fingerprint: str, answer: Any | None) -> None:
        """Remember the answer; without one, the same request may claim the key again."""


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    answer: Any | None = None
    claimed: bool = True


class MemoryKeyStore:
    """Remembers the keys of this process.

    Args:
        most: Keys that are remembered; the one that came first is forgotten first. Each takes less
            than 1 KB.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def claim(self, key: str, fingerprint: str) -> Any | None:
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(fingerprint)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)
            return None
        if entry.fingerprint != fingerprint:
            raise KeyReused
        if entry.claimed:
            raise KeyInUse
        entry.claimed = entry.answer is None
        return entry.answer

    async def release(self, key: str, fingerprint: str, answer: Any | None) -> None:
        entry = self._entries.get(key)
        if entry and entry.fingerprint == fingerprint:  # not one that came after it was forgotten
            entry.answer, entry.claimed = answer, False


async def once(
    store: KeyStore, key: str, fingerprint: str, answer: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Answer a request, or repeat the answer that it got before, which is not None.

    What `answer` raises is not remembered: the same request may try again.

    Raises:
        KeyReused: The key came with another request before.
        KeyInUse: That request is still being answered.
    """
    known: Answer | None = await store.claim(key, fingerprint)
    if known is not None:
        return known
    given: Answer | None = None
    try:
        given = await answer()
    finally:
        await store.release(key, fingerprint, given)
    return given


def parse_key(lines: Sequence[str]) -> str | None:
    """Return the key, or None without one; `"k"` and `k` are the same key.

    Args:
        lines: The values of all header lines of that name.

    Raises:
        BadKey: The key is not valid, or there are several.
    """
    if not lines:
        return None
    if len(lines) > 1:
        raise BadKey("sent more than once; a request has one key")
    value = lines[0].strip()
    if len(value) > MAX_KEY_CHARACTERS:
        raise BadKey(f"longer than {MAX_KEY_CHARACTERS} characters; a UUID will do")
    if not re.fullmatch(KEY_PATTERN, value):
        raise BadKey(
            "not a quoted string of printable ASCII characters, nor such a text without quotes, "
            'space and comma; a UUID will do: "8e03978e-40d5-43e8-bc93-6894a57f9324"'
        )
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value


def fingerprint(request: BaseModel) -> str:
    """64 hex digits, the same for each request that means the same.

    Space, which field is first, and a default that is said or left out make no difference; so a
    field with a default can be added, and a client may still repeat what an older version took.
    """
    meant = request.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()


def _of_request(
    request: Request,
    _documented: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="With the same key, the same request is answered as the first time",
        ),
        WithJsonSchema({"type": "string", "pattern": KEY_PATTERN, "maxLength": MAX_KEY_CHARACTERS}),
    ] = None,
) -> str | None:
    return parse_key(request.headers.getlist("idempotency-key"))


IdempotencyKey = Annotated[str | None, Depends(_of_request)]
"""A route's parameter: the request's key, or None."""
