"""Limits for the connections of a service's HTTP server: their number and their idle time.

Uvicorn times out a connection only after a response. Above its connection limit, it answers every
request with 503, health checks included.

The only way to change that is a subclass of uvicorn's `H11Protocol`, which is public but not
documented. If a future version lacks a part used here, the service logs it once and uvicorn's own
limits apply.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .telemetry.missing import warn_missing

# Beside these: `cycle.response_complete` and `flow.write_paused`.
_ATTRIBUTES = ("connections", "cycle", "flow", "limit_concurrency", "timeout_keep_alive")
_METHODS = ("on_response_complete", "pause_writing")


class Connection(H11Protocol):
    """For `uvicorn.run(http=Connection)`: closes idle connections according to two uvicorn
    settings.

    A connection is idle while it waits for a request with all its headers, or for the client to
    read the response. Beyond `limit_concurrency` connections, the longest idle one is closed. A
    connection that has been idle for `timeout_keep_alive` seconds is closed before twice that time
    has passed.
    """

    waiting_since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        missing = [name for name in _ATTRIBUTES if not hasattr(self, name)]
        missing += [name for name in _METHODS if not hasattr(H11Protocol, name)]
        if missing:
            _warn_missing(missing[0])
            return
        self._transport = transport
        self._wait_from_now()
        self._look()
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            others = [one for one in self.connections if isinstance(one, Connection)]
            waiting = [one for one in others if one.waits]
            if waiting:
                min(waiting, key=lambda one: one.waiting_since).end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait_from_now()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._wait_from_now()
        super().pause_writing()

    def _wait_from_now(self) -> None:
        self.waiting_since = asyncio.get_running_loop().time()

    @property
    def waits(self) -> bool:
        """Whether the connection waits for its client."""
        try:
            return self.cycle is None or self.cycle.response_complete or self.flow.write_paused
        except AttributeError as error:
            _warn_missing(error.name)
            return False

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        waited = loop.time() - self.waiting_since if self.waits else 0.0
        if waited < self.timeout_keep_alive:
            self._timer = loop.call_later(self.timeout_keep_alive - waited, self._look)
        else:
            self.end()

    def end(self) -> None:
        """Close it at once."""
        self.connections.discard(self)  # no longer counts, however long closing takes
        self._transport.abort()


def _warn_missing(name: str | None) -> None:
    warn_missing(
        "uvicorn",
        f"`{name}` in its H11Protocol",
        "idle connections are not closed early, and too many of them answer every request with 503",
    )
