"""Sends dead letters back to where they came from, each in a new trace that links to its old one.

At least once, as all delivery here: if this is interrupted after a dead letter was sent and before
that was recorded, the next replay of all sends it again.
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
from ..broker import TooLarge, Unavailable, Unreachable
from . import DEAD_LETTERS
from .dead_letter import DeadLetter
from .headers import encoded
from .states import MAX_IDS, State, StateChange, States
from .store import DeadLetterStore

PAGE_DEAD_LETTERS = 100
PAGE_BYTES = 8 * 1_048_576
PAGE_SECONDS = 30.0
"""For sending one page: less than the time for which others leave it alone."""

logger = logging.getLogger(__name__)

assert PAGE_DEAD_LETTERS <= MAX_IDS


@dataclass(frozen=True)
class Outcome:
    """The result for one dead letter: where it was sent, in which trace, or why it was not."""

    dead_letter: DeadLetter
    channel: str = ""
    trace_id: str = ""
    reason: str = ""


class Replay:
    """Sends dead letters back, page by page.

    Args:
        store: Where they are kept.
        tracer: Makes the spans.
        ends: By log the last id that was read to find these dead letters: `Search.ends`.
        to: The channel to send them to, instead of the one that they came from.
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
        self._meanwhile = States(store.order)
        """What was recorded after that: by others, who may be pages ahead, and by this replay."""

    async def send(self, dead_letters: AsyncIterator[DeadLetter]) -> AsyncIterator[Outcome]:
        """Send dead letters, and yield each outcome once it is certain. Holds a page in memory."""
        async for page in _pages(dead_letters):
            for outcome in await self._send_page(page):
                yield outcome

    async def _refusal(self, dead_letter: DeadLetter) -> str:
        """Why a dead letter cannot be sent; empty if it can."""
        destination = self._to or dead_letter.channel
        if not destination:
            return "it does not say which channel it came from; --to names one"
        if destination == DEAD_LETTERS:
            return f"it would go to {DEAD_LETTERS} again"
        if not await self._store.exists(destination):
            return f"there is no channel {destination}; --to names another"
        if dead_letter.truncated:
            return (
                f"it was too large and lacks some of its {' and '.join(dead_letter.truncated)}; all"
                f" of it is message {dead_letter.message_id} of {dead_letter.channel}, for as long"
                " as that channel keeps it"
            )
        return ""

    async def _send_page(self, page: Sequence[DeadLetter]) -> list[Outcome]:
        outcomes, sendable = [], []
        for one in page:
            if reason := await self._refusal(one):
                outcomes.append(Outcome(one, reason=reason))
            else:
                sendable.append(one)
        await self._begin(sendable)
        mine = []
        for one in sendable:
            if self._meanwhile.of(one.id) is State.OPEN:
                mine.append(one)
            else:
                outcomes.append(Outcome(one, reason="another replay is sending it right now"))
        sendings: list[_Sending] = []
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                # All are handed over before the first is waited for, in their order.
                for one in mine:
                    sendings.append(await self._start(one))  # noqa: PERF401 (kept if it ends)
                outcomes += [await self._finish(sending) for sending in sendings]
        except TimeoutError as error:
            raise Unreachable(
                f"not all was confirmed within {PAGE_SECONDS:g} s; what may have been sent is"
                " listed as such"
            ) from error
        finally:
            # Also when this is cancelled: what was sent should not be sent again.
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
        """Record replays as begun, and read what others have recorded before that.

        Raises:
            Unreachable: The broker does not show this record: somebody may have been first.
        """
        for log, own in (await _record(self._store, State.BEGUN, dead_letters)).items():
            seen = self._store.order(self._seen[log])
            async with aclosing(self._store.read({log: self._seen[log]})) as records:
                async for record in records:
                    if record.id == own:
                        break
                    if self._store.order(record.id) > seen:
                        self._meanwhile.note(record)
                else:
                    raise Unreachable(
                        f"{DEAD_LETTERS} does not show record {own}; nothing was sent"
                    )
            self._seen[log] = own

    async def _start(self, dead_letter: DeadLetter) -> "_Sending":
        """Hand a dead letter to the client, in the order of these calls."""
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
        headers = [*dead_letter.headers, *encoded(added)]
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
        # Keep neither the error nor the future: a traceback refers to the dead letters' bodies.
        self.sent = None
        ours = isinstance(error, (TooLarge, Unavailable))
        self.failure = str(error) if ours else f"{type(error).__name__}: {error}"
        self.certainly_unsent = isinstance(error, TooLarge)


async def discard(
    store: DeadLetterStore, dead_letters: AsyncIterator[DeadLetter]
) -> AsyncIterator[DeadLetter]:
    """Record dead letters as discarded: nobody will send them back. Yields each one then."""
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
    """Record the state of dead letters. Returns by log the id of the new record."""
    by_log: dict[str, list[str]] = {}
    for dead_letter in dead_letters:
        by_log.setdefault(store.order(dead_letter.id)[0], []).append(dead_letter.id)
    changes = {log: StateChange(state, ids) for log, ids in by_log.items()}
    return {
        log: await store.append(log, change.body, change.headers) for log, change in changes.items()
    }
