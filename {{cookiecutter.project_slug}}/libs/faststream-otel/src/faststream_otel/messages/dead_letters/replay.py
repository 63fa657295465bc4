"""Sends dead letters back to where they came from, each in a new trace that links to its old one.

At least once, as all delivery here: if this is interrupted after a letter was sent and before its
mark was written, it is sent again by the next replay of all.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from ...telemetry.errors import fail
from ...telemetry.propagation import inject
from ..broker import Headers
from . import DEAD_LETTERS
from .ledger import MOST_LETTERS, Ledger, Mark, State
from .letter import Letter, Record, encoded

PAGE_LETTERS = 100
PAGE_BYTES = 8 * 1_048_576
PAGE_SECONDS = 30.0
"""For sending one page: less than the time for which others leave it alone."""

Attributes = dict[str, AttributeValue]
Offsets = Mapping[int, int]

logger = logging.getLogger(__name__)

assert PAGE_LETTERS <= MOST_LETTERS


class Topic(Protocol):
    """What this needs of the topic of dead letters; the broker's module has it."""

    @property
    def topics(self) -> frozenset[str]: ...
    @property
    def first(self) -> Offsets: ...
    @property
    def end(self) -> Offsets: ...
    def read(self, start: Offsets, end: Offsets) -> AsyncIterator[Record]: ...
    async def mark(self, partition: int, mark: Mark) -> int: ...
    async def send(
        self, topic: str, letter: Letter, headers: Headers
    ) -> "asyncio.Future[object]": ...
    def attributes(self, topic: str, letter: Letter) -> tuple[Attributes, Attributes]: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one letter: where it went, in which trace, or else why it did not."""

    letter: Letter
    topic: str = ""
    trace_id: str = ""
    reason: str = ""


class Replay:
    """Sends letters back, page by page.

    Args:
        topic: Of the dead letters.
        tracer: Makes the spans.
        certain: The errors after which a message certainly was not sent.
        to: Where to send them, instead of where they came from.
    """

    def __init__(
        self,
        topic: Topic,
        tracer: Tracer,
        certain: tuple[type[Exception], ...],
        to: str | None = None,
    ) -> None:
        self._topic = topic
        self._tracer = tracer
        self._certain = certain
        self._to = to
        self._seen = dict(topic.end)
        """How far marks are known that were written meanwhile, by partition."""
        self._meanwhile = Ledger()
        """Of others, who may be pages ahead; and of this one, about pages that are done."""

    async def send(self, letters: AsyncIterator[Letter]) -> AsyncIterator[Outcome]:
        """Send letters, and tell of each as soon as that is certain. Holds one page in memory."""
        async for page in _pages(letters):
            for outcome in await self._send_page(page):
                yield outcome

    def refusal(self, letter: Letter) -> str:
        """Why a letter cannot be sent; empty if it can."""
        destination = self._to or letter.topic
        if not destination:
            return "it does not say which topic it came from; --to names one"
        if destination == DEAD_LETTERS:
            return f"it would go to {DEAD_LETTERS} again"
        if destination not in self._topic.topics:
            return f"there is no topic {destination}; --to names another"
        if letter.truncated:
            return (
                f"it was too large and lacks some of its {' and '.join(letter.truncated)}; all of"
                f" it is in {letter.topic} at {letter.origin}, for as long as that topic keeps it"
            )
        return ""

    async def _send_page(self, page: Sequence[Letter]) -> list[Outcome]:
        refused = {letter.position: self.refusal(letter) for letter in page}
        outcomes = [
            Outcome(letter, reason=refused[letter.position])
            for letter in page
            if refused[letter.position]
        ]
        mine = [letter for letter in page if not refused[letter.position]]
        await self._begin(mine)
        free = {
            letter.position
            for letter in mine
            if self._meanwhile.state(letter.position) is State.OPEN
        }
        outcomes += [
            Outcome(letter, reason="somebody else has it in hand just now")
            for letter in mine
            if letter.position not in free
        ]
        mine = [letter for letter in mine if letter.position in free]
        sendings: list[_Sending] = []
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                # All are handed over before the first is waited for, in the order of the letters.
                for letter in mine:
                    sendings.append(await self._start(letter))  # noqa: PERF401 (kept if it ends)
                outcomes += [await self._finish(sending) for sending in sendings]
        except TimeoutError as error:
            raise TimeoutError(
                f"not all was confirmed within {PAGE_SECONDS:g} s; what may have been sent is"
                " listed as such"
            ) from error
        finally:
            # Also when this is being ended: what was sent should not be sent again.
            for sending in sendings:
                if sending.span.is_recording():
                    sending.span.end()
            await self._mark(State.REPLAYED, [one.letter for one in sendings if one.confirmed])
            handed_over = {one.letter.position for one in sendings if not one.certainly_unsent}
            unsent = [letter for letter in mine if letter.position not in handed_over]
            await self._mark(State.OPEN, unsent)
        return outcomes

    async def _begin(self, letters: Sequence[Letter]) -> None:
        """Mark letters as begun, and learn what others have marked before that."""
        for partition, offsets in _by_partition(letters).items():
            own = await self._topic.mark(partition, Mark(State.BEGUN, offsets))
            async for record in self._topic.read(
                {partition: self._seen[partition]}, {partition: own}
            ):
                self._meanwhile.note(record)
            self._seen[partition] = own + 1

    async def _mark(self, state: State, letters: Sequence[Letter]) -> None:
        for partition, offsets in _by_partition(letters).items():
            await self._topic.mark(partition, Mark(state, offsets))

    async def _start(self, letter: Letter) -> "_Sending":
        """Hand a letter to the client, in the order of these calls."""
        destination = self._to or letter.topic
        attributes, of_letter = self._topic.attributes(destination, letter)
        context = letter.baggage
        span = self._tracer.start_span(
            f"send {destination}",
            context=context,
            kind=SpanKind.PRODUCER,
            attributes=attributes
            | {
                "dead_letter.position": str(letter.position),
                "dead_letter.error.type": letter.error_type,
            },
            links=[Link(letter.cause, of_letter)] if letter.cause else [],
        )
        added: dict[str, str] = {}
        inject(added, trace.set_span_in_context(span, context))
        headers = [*letter.headers, *encoded(added)]
        sending = _Sending(letter, destination, span)
        try:
            sending.sent = await self._topic.send(destination, letter, headers)
        except Exception as error:
            self._fail(sending, error)
        return sending

    async def _finish(self, sending: "_Sending") -> Outcome:
        letter, span = sending.letter, sending.span
        if sending.sent:
            try:
                await sending.sent
            except Exception as error:
                self._fail(sending, error)
        with trace.use_span(span, end_on_exit=True):
            if sending.failure:
                logger.info("Dead letter %s not sent: %s", letter.position, sending.failure)
                return Outcome(letter, sending.destination, reason=sending.failure)
            logger.info("Dead letter %s sent to %s", letter.position, sending.destination)
        identity = span.get_span_context()
        trace_id = trace.format_trace_id(identity.trace_id) if identity.is_valid else ""
        return Outcome(letter, sending.destination, trace_id)

    def _fail(self, sending: "_Sending", error: Exception) -> None:
        fail(sending.span, error)
        # Not the error itself, nor its future: its traceback leads back to what holds the letters.
        sending.sent = None
        sending.failure = f"{type(error).__name__}: {error}"
        sending.certainly_unsent = isinstance(error, self._certain)


@dataclass
class _Sending:
    letter: Letter
    destination: str
    span: Span
    sent: "asyncio.Future[object] | None" = None
    failure: str = ""
    certainly_unsent: bool = False

    @property
    def confirmed(self) -> bool:
        sent = self.sent
        return bool(sent and sent.done() and not sent.cancelled() and not sent.exception())


async def discard(topic: Topic, letters: AsyncIterator[Letter]) -> AsyncIterator[Letter]:
    """Mark letters as ones that nobody will send back, and tell of each."""
    async for page in _pages(letters):
        for partition, offsets in _by_partition(page).items():
            await topic.mark(partition, Mark(State.DISCARDED, offsets))
        for letter in page:
            yield letter


async def _pages(letters: AsyncIterator[Letter]) -> AsyncIterator[list[Letter]]:
    page: list[Letter] = []
    size = 0
    async for letter in letters:
        page.append(letter)
        size += len(letter.value or b"")
        if len(page) == PAGE_LETTERS or size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def _by_partition(letters: Sequence[Letter]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for letter in letters:
        found.setdefault(letter.position.partition, []).append(letter.position.offset)
    return found
