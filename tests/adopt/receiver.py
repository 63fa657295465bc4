"""The library's OTLP receiver, under one name for these tests."""

from collections.abc import Iterable
from typing import Any

from faststream_otel.dev.receiver import OtlpReceiver as Receiver
from faststream_otel.dev.receiver import Tls

__all__ = ("DemandingReceiver", "Receiver", "Tls")


class DemandingReceiver(Receiver):
    """Refuses what comes without a token, as a vendor does."""

    def __init__(self, authorization: str, **options: Any) -> None:
        super().__init__(**options)
        self._authorization = authorization

    def receive(
        self, signal: Any, request: Any, protocol: Any, headers: Iterable[tuple[str, str | bytes]]
    ) -> None:
        headers = [(str(name).lower(), value) for name, value in headers]
        if ("authorization", self._authorization) not in headers:
            raise PermissionError("no token")
        super().receive(signal, request, protocol, headers)
