"""HTTP with routes of your own, by FastAPI (extra `http`)."""

from .idempotency_key import IdempotencyKey, MemoryKeyStore, fingerprint, once
from .service import HttpService

__all__ = ("HttpService", "IdempotencyKey", "MemoryKeyStore", "fingerprint", "once")
