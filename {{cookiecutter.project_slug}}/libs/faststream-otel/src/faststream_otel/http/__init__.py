"""HTTP with routes of your own, by FastAPI (extra `http`)."""

from .errors import Errors, Refused
from .idempotency_key import IdempotencyKey, MemoryKeyStore, fingerprint, once
from .json_body import JsonRoute
from .service import HttpService

__all__ = (
    "Errors",
    "HttpService",
    "IdempotencyKey",
    "JsonRoute",
    "MemoryKeyStore",
    "Refused",
    "fingerprint",
    "once",
)
