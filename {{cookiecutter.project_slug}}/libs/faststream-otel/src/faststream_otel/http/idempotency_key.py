"""The Idempotency-Key header: a repeated request gets the response of the first one.

Follows draft-ietf-httpapi-idempotency-key-header-07.
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
"""A quoted string (RFC 8941, 3.3.3), or text without quotes, spaces and commas."""


Answer = TypeVar("Answer")


class BadKey(ValueError):
    """The header has no valid key. The text says what a valid one looks like."""


class KeyReused(Exception):
    """The key was sent earlier with a different request."""


class KeyInUse(Exception):
    """The first request with the key has not been answered yet."""


class KeyStore(Protocol):
    """Remembers keys and responses. Replicas of a service can share one store.

    A store outside the process must do each step atomically, and release the claims of a process
    that died. An answer is the object that the route returns: such a store must serialize it.
    """

    async def claim(self, key: str, fingerprint: str) -> Any | None:
        """Claim the key. Return the answer of the first request, or None if this is the first one.

        After None, the caller handles the request and calls `release`.

        Raises:
            KeyReused: The key was claimed earlier with a different fingerprint.
            KeyInUse: Another request holds the claim.
        """

    async def release(self, key: str, fingerprint: str, answer: Any | None) -> None:
        """Remember the answer. If it is None, the same request may claim the key again."""


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    answer: Any | None = None
    claimed: bool = True


class MemoryKeyStore:
    """Remembers keys in the memory of this process.

    Args:
        most: How many keys to remember; the oldest is forgotten first. Each takes less than 1 KB.
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
        # The key may have been forgotten meanwhile, and claimed by another request.
        if entry and entry.fingerprint == fingerprint:
            entry.answer, entry.claimed = answer, False


async def once(
    store: KeyStore, key: str, fingerprint: str, answer: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Call `answer` for the first request with a key, and return the same answer to later ones.

    Args:
        answer: Must not return None. If it raises an error, the same request may be sent again.

    Raises:
        KeyReused: The key was sent earlier with a different request.
        KeyInUse: The first request is still being answered.
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
    """Return the key, or None if there is none; `"k"` and `k` are the same key.

    Args:
        lines: The values of all Idempotency-Key header lines.

    Raises:
        BadKey: The key is not valid, or there are several.
    """
    if not lines:
        return None
    if len(lines) > 1:
        raise BadKey("sent more than once; a request can have only one key")
    value = lines[0].strip()
    if len(value) > MAX_KEY_CHARACTERS:
        raise BadKey(f"longer than {MAX_KEY_CHARACTERS} characters; a UUID will do")
    if not re.fullmatch(KEY_PATTERN, value):
        raise BadKey(
            "not a quoted string of printable ASCII characters, nor such text without quotes, "
            'spaces and commas; a UUID will do: "8e03978e-40d5-43e8-bc93-6894a57f9324"'
        )
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value


def fingerprint(request: BaseModel) -> str:
    """Hash a request to 64 hex digits, equal for requests with the same meaning.

    White space, the order of fields, and whether a default value is sent make no difference. So a
    new field with a default does not break the repetition of an older request.
    """
    meant = request.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()


def _of_request(
    request: Request,
    _documented: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="A repeated request with the same key gets the first response",
        ),
        WithJsonSchema({"type": "string", "pattern": KEY_PATTERN, "maxLength": MAX_KEY_CHARACTERS}),
    ] = None,
) -> str | None:
    return parse_key(request.headers.getlist("idempotency-key"))


IdempotencyKey = Annotated[str | None, Depends(_of_request)]
"""Type of a route's parameter: the request's key, or None."""
