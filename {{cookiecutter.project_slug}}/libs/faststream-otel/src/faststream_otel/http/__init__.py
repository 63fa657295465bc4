"""Services with their own HTTP routes, using FastAPI (extra `http`)."""

from .errors import Errors, Refused
from .idempotency_key import (
    IdempotencyKey,
    KeyInUse,
    KeyReused,
    KeyStore,
    MemoryKeyStore,
    fingerprint,
    once,
)
from .json_body import JsonRoute
from .service import HttpService

__all__ = (
    "Errors",
    "HttpService",
    "IdempotencyKey",
    "JsonRoute",
    "KeyInUse",
    "KeyReused",
    "KeyStore",
    "MemoryKeyStore",
    "Refused",
    "fingerprint",
    "once",
)
