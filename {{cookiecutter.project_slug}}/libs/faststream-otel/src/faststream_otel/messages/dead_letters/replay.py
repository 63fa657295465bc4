"""Replays dead letters: sends each back to its channel, in a new trace that links to its old one.

Replay is at least once, like all delivery. If it is interrupted between sending a dead letter and
recording that, the next replay of all dead letters sends it again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Tracer

from ...telemetry.errors import fail
from ...telemetry.propagation import inject
from ..broker import NotSent, TooLarge, Unavailable, Unreachable
from . import DEAD_LETTERS
from .dead_letter import DeadLetter
from .headers import encoded_headers
from .states import MAX_IDS, State, StateChange, States
from .store import DeadLetterStore

PAGE_DEAD_LETTERS = 100
PAGE_BYTES = 8 * 1_048_576
PAGE_SECONDS = 30.0
"""The time-out for sending one page, shorter than `BEGUN_SECONDS`."""

logger = logging.getLogger(__name__)

assert PAGE_DEAD_LETTERS <= MAX_IDS


@dataclass(frozen=True)
class Outcome:
    """The result for one dead letter.

    Attributes:
        channel: Where it was sent, or was to be sent; may be empty if it was not sent.
        trace_id: The trace in which it was sent; empty if it was not.
        reason: Why it was not sent; empty if it was.
    """

    dead_letter: DeadLetter
    channel: str = ""
    trace_id: str = ""
    reason: str = ""


class Replay:
    """Sends dead letters back, page by page.

    Args:
        store: The store of the dead letters.
        tracer: Makes the spans.
        ends: For each log, the last id that the search has read: `Search.ends`.
        to: The channel to send them to. Default: the channel that each came from.
    """

    def __init__(
        self,
        store: DeadLetterStore,
        tracer: Tracer,
        ends: Mapping[str, str],
        to: str | None = None,
    ) -> None:
        self._store = store
        self._tracer = tracer
        self._to = to
        self._seen = dict(ends)
        self._states = States(store.order)
        """Changes of state after `ends`, by this replay or by another one at the same time."""

    async def send(self, dead_letters: AsyncIterator[DeadLetter]) -> AsyncIterator[Outcome]:
        """Send dead letters, and yield each outcome once it is certain. Keeps a page in memory."""
        async for page in _pages(dead_letters):
            for outcome in await self._send_page(page):
                yield outcome

    async def _why_unsendable(self, dead_letter: DeadLetter) -> str:
        """Why a dead letter cannot be sent; empty if it can."""
        destination = self._to or dead_letter.channel
        if not destination:
            return "it does not say which channel it came from; name one with --to"
        if destination == DEAD_LETTERS:
            return f"it would go back to {DEAD_LETTERS}"
        if not await self._store.exists(destination):
            return f"the channel {destination} does not exist; name another with --to"
        if dead_letter.truncated:
            return (
                f"it was too large, so some of its {' and '.join(dead_letter.truncated)} was cut;"
                f" the original is message {dead_letter.message_id} of {dead_letter.channel},"
                " while that channel still keeps it"
            )
        return ""

    async def _send_page(self, page: Sequence[DeadLetter]) -> list[Outcome]:
        outcomes, sendable = [], []
        for one in page:
            if reason := await self._why_unsendable(one):
                outcomes.append(Outcome(one, reason=reason))
            else:
                sendable.append(one)
        await self._begin(sendable)
        mine = []
        for one in sendable:
            if self._states.of(one.id) is State.OPEN:
                mine.append(one)
            else:
                outcomes.append(Outcome(one, reason="another replay is sending it right now"))
        sendings: list[_Sending] = []
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                # Send all, in their order, before waiting for the first confirmation.
                for one in mine:
                    sendings.append(await self._start(one))  # noqa: PERF401 (kept on time-out)
                outcomes += [await self._finish(sending) for sending in sendings]
        except TimeoutError as error:
            raise Unreachable(
                f"it did not confirm all dead letters within {PAGE_SECONDS:g} s; those that may"
                " have been sent are listed as such"
            ) from error
        finally:
            # Even if cancelled: the next replay must not resend what was sent.
            for sending in sendings:
                if sending.span.is_recording():
                    sending.span.end()
            confirmed = [one.dead_letter for one in sendings if one.confirmed]
            await _record(self._store, State.REPLAYED, confirmed)
            handed_over = {one.dead_letter.id for one in sendings if not one.certainly_unsent}
            unsent = [one for one in mine if one.id not in handed_over]
            await _record(self._store, State.OPEN, unsent)
        return outcomes

    async def _begin(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Record the replays as begun, then read what others have recorded before.

        Raises:
            Unreachable: The broker does not return this record, so another replay may be first.
        """
        for log, own in (await _record(self._store, State.BEGUN, dead_letters)).items():
            seen = self._store.order(self._seen[log])
            async with aclosing(self._store.read({log: self._seen[log]})) as records:
                async for record in records:
                    if record.id == own:
                        break
                    if self._store.order(record.id) > seen:
                        self._states.apply(record)
                else:
                    raise Unreachable(
                        f"{DEAD_LETTERS} does not return record {own}; nothing was sent"
                    )
            self._seen[log] = own

    async def _start(self, dead_letter: DeadLetter) -> "_Sending":
        """Hand a dead letter to the client, which keeps the order of these calls."""
        destination = self._to or dead_letter.channel
        attributes, of_link = self._store.attributes(destination, dead_letter)
        context = dead_letter.baggage
        span = self._tracer.start_span(
            f"send {destination}",
            context=context,
            kind=SpanKind.PRODUCER,
            attributes=attributes
            | {
                "dead_letter.id": dead_letter.id,
                "dead_letter.error.type": dead_letter.error_type,
            },
            links=[Link(dead_letter.cause, of_link)] if dead_letter.cause else [],
        )
        added: dict[str, str] = {}
        inject(added, trace.set_span_in_context(span, context))
        headers = [*dead_letter.headers, *encoded_headers(added)]
        sending = _Sending(dead_letter, destination, span)
        try:
            sending.sent = await self._store.send(destination, dead_letter, headers)
        except Exception as error:
            sending.fail(error)
        return sending

    async def _finish(self, sending: "_Sending") -> Outcome:
        dead_letter, span = sending.dead_letter, sending.span
        if sending.sent:
            try:
                await sending.sent
            except Exception as error:
                sending.fail(error)
        with trace.use_span(span, end_on_exit=True):
            if sending.failure:
                logger.info("Dead letter %s not sent: %s", dead_letter.id, sending.failure)
                return Outcome(dead_letter, sending.destination, reason=sending.failure)
            logger.info("Dead letter %s sent to %s", dead_letter.id, sending.destination)
        identity = span.get_span_context()
        trace_id = trace.format_trace_id(identity.trace_id) if identity.is_valid else ""
        return Outcome(dead_letter, sending.destination, trace_id)


@dataclass
class _Sending:
    dead_letter: DeadLetter
    destination: str
    span: Span
    sent: "asyncio.Future[object] | None" = None
    failure: str = ""
    certainly_unsent: bool = False

    @property
    def confirmed(self) -> bool:
        sent = self.sent
        return bool(sent and sent.done() and not sent.cancelled() and not sent.exception())

    def fail(self, error: Exception) -> None:
        fail(self.span, error)
        # Keep neither the error nor the future: the traceback refers to the dead letters' bodies.
        self.sent = None
        ours = isinstance(error, (TooLarge, Unavailable))
        self.failure = str(error) if ours else f"{type(error).__name__}: {error}"
        self.certainly_unsent = isinstance(error, (TooLarge, NotSent))


async def discard(
    store: DeadLetterStore, dead_letters: AsyncIterator[DeadLetter]
) -> AsyncIterator[DeadLetter]:
    """Record dead letters as discarded, so that no replay sends them. Yields each one then."""
    async for page in _pages(dead_letters):
        await _record(store, State.DISCARDED, page)
        for dead_letter in page:
            yield dead_letter


async def _pages(dead_letters: AsyncIterator[DeadLetter]) -> AsyncIterator[list[DeadLetter]]:
    page: list[DeadLetter] = []
    size = 0
    async for dead_letter in dead_letters:
        page.append(dead_letter)
        size += len(dead_letter.body or b"")
        if len(page) == PAGE_DEAD_LETTERS or size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


async def _record(
    store: DeadLetterStore, state: State, dead_letters: Sequence[DeadLetter]
) -> dict[str, str]:
    """Record the state of dead letters. Returns the id of the new record for each log."""
    by_log: dict[str, list[str]] = {}
    for dead_letter in dead_letters:
        by_log.setdefault(store.order(dead_letter.id)[0], []).append(dead_letter.id)
    changes = {log: StateChange(state, ids) for log, ids in by_log.items()}
    return {
        log: await store.append(log, change.body, change.headers) for log, change in changes.items()
    }
