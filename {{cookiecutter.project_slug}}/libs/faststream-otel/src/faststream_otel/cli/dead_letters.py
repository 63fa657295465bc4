"""The commands `dead-letters`, `replay` and `discard`."""

import argparse
import heapq
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

from ..messages.dead_letters import DEAD_LETTERS
from ..messages.dead_letters.dead_letter import DeadLetter
from ..messages.dead_letters.replay import Replay, discard
from ..messages.dead_letters.search import Filter, Search
from ..messages.dead_letters.show import INDENT, Links, Summary, as_json, as_text, clean
from ..messages.dead_letters.states import TO_DO, State
from ..messages.dead_letters.store import DeadLetterStore
from ..telemetry import Telemetry
from .command import CannotContinue, Command, Context, Subparsers, add_command

SERVICE_NAME = "replay"
"""Differs from the channel's name, because dashboards show both side by side."""
SHOWN = 20
FLUSH_SECONDS = 5.0


def add_to(commands: Subparsers) -> None:
    """Add these commands to those of the program."""
    listing = _add(
        commands, "dead-letters", _list, "list dead letters, and why they failed", lists=True
    )
    listing.add_argument("--all", action="store_true", help="include replayed and discarded ones")
    listing.add_argument(
        "--json", action="store_true", help="one JSON object a line, with the body"
    )
    listing.add_argument("--body", action="store_true", help="also show headers and bodies")
    listing.add_argument(
        "--limit",
        type=_count,
        metavar="NUMBER",
        help=f"only the newest (default: {SHOWN}; with --json, all)",
    )
    replaying = _add(
        commands, "replay", _replay, "send dead letters back to the channel they came from"
    )
    _add_choice(replaying)
    replaying.add_argument(
        "--again", action="store_true", help="include replayed and discarded ones"
    )
    replaying.add_argument("--to", metavar="CHANNEL", help="send to this channel instead")
    discarding = _add(commands, "discard", _discard, "close dead letters that nobody will replay")
    _add_choice(discarding)


def _add(
    commands: Subparsers, name: str, command: Command, text: str, *, lists: bool = False
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, command, text, lists=lists)
    parser.add_argument("--channel", default="", help="only those that came from this channel")
    parser.add_argument(
        "--error-type", default="", metavar="CLASS", help="only those with this error"
    )
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids", nargs="*", metavar="id", help="an id from the output of `dead-letters`"
    )
    parser.add_argument("--all", action="store_true", help="all open ones")
    parser.add_argument("--dry-run", action="store_true", help="only show the chosen ones")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000000")
    return int(text)


async def _list(context: Context) -> int:
    options = context.options
    states = frozenset(State) if options.all else TO_DO | {State.BEGUN}
    filter = Filter(channel=options.channel, error_type=options.error_type, states=states)
    async with context.broker.dead_letters() as store:
        await _warn_of_no_channel(context, store)
        search = Search(store, filter)
        await search.prepare()
        limit = options.limit or (None if options.json else SHOWN)
        links = Links(context.settings.trace_url)
        if options.json:
            async for dead_letter, state in _newest(search, limit, Summary()):
                print(as_json(dead_letter, state, links), flush=True)
            return 0
        summary = Summary()
        shown = 0
        async for dead_letter, state in _newest(search, limit, summary, bodies=options.body):
            begun = search.states.begun(dead_letter.id)
            print(as_text(dead_letter, state, links, begun=begun, body=options.body), end="\n\n")
            shown += 1
        _summarize(summary, shown, search, options)
    return 0


async def _newest(
    search: Search, limit: int | None, summary: Summary, *, bodies: bool = True
) -> AsyncIterator[tuple[DeadLetter, State]]:
    """The newest dead letters, newest last; without a limit all, in the order of reading."""
    kept: list[tuple[float, int, DeadLetter, State]] = []
    async for dead_letter, state in search.dead_letters():
        summary.add(dead_letter)
        if limit is None:
            yield dead_letter, state
            continue
        if not bodies:  # drop them early: they may be large
            dead_letter = DeadLetter(replace(dead_letter.record, body=None))
        # The total breaks ties of the same time by the order of reading.
        item = (dead_letter.record.timestamp, summary.total, dead_letter, state)
        if len(kept) < limit:
            heapq.heappush(kept, item)
        else:
            heapq.heappushpop(kept, item)
    for _, _, dead_letter, state in sorted(kept, key=lambda one: one[:2]):
        yield dead_letter, state


def _summarize(summary: Summary, shown: int, search: Search, options: argparse.Namespace) -> None:
    matching = " that match" if options.channel or options.error_type else ""
    if not summary.total:
        print(f"No {'' if options.all else 'open '}dead letters{matching}.")
    else:
        what = "dead letters" if options.all else "open"
        print(f"{summary.total} {what}{matching}: {summary}")
        if shown < summary.total:
            print(f"Shown: the newest {shown} (--limit shows more)")
    ended = [(search.counts[one], one.value) for one in (State.REPLAYED, State.DISCARDED)]
    if not options.all and any(number for number, _ in ended):
        hidden = " and ".join(f"{number} {name}" for number, name in ended if number)
        print(f"Not shown: {hidden} (--all shows them too)")


async def _replay(context: Context) -> int:
    options = context.options
    store = _store(context)
    async with store:
        search = await _chosen(context, store)
        if options.to and not await store.exists(options.to):
            raise CannotContinue(f"The channel {options.to} (--to) does not exist.")
        if options.dry_run:
            return await _show(context, search, "would be sent")
        # Each run would add its own short metric series, which Prometheus keeps for weeks.
        os.environ.setdefault("OTEL_METRICS_EXPORTER", "none")
        telemetry = Telemetry(SERVICE_NAME, make_global=False)
        try:
            tracer = telemetry.tracer_provider.get_tracer(__name__)
            return await _send(context, Replay(store, tracer, search.ends, options.to), search)
        finally:
            await telemetry.shutdown(FLUSH_SECONDS)


async def _send(context: Context, replay: Replay, search: Search) -> int:
    links = Links(context.settings.trace_url)
    sent = failed = 0
    async for outcome in replay.send(_dead_letters(search)):
        id = outcome.dead_letter.id
        if outcome.reason:
            failed += 1
            print(f"{id} not sent: {clean(outcome.reason)}", file=sys.stderr)
        else:
            sent += 1
            print(f"{id}  sent to {clean(outcome.channel)}")
            print(INDENT + (links.to(outcome.trace_id) or "no trace"))
    return _conclude(search, sent, "sent", failed)


async def _discard(context: Context) -> int:
    store = _store(context)
    async with store:
        search = await _chosen(context, store)
        if context.options.dry_run:
            return await _show(context, search, "would be discarded")
        number = 0
        async for dead_letter in discard(store, _dead_letters(search)):
            print(f"{dead_letter.id}  discarded")
            number += 1
    return _conclude(search, number, "discarded")


def _store(context: Context) -> DeadLetterStore:
    """Check the options, and return the store, which is not connected yet."""
    options = context.options
    by_kind = options.all or options.channel or options.error_type
    if options.ids and by_kind:
        options.error("give either ids, or --all, --channel or --error-type, but not both")
    if not (options.ids or by_kind):
        options.error(
            "say which: ids from the output of `dead-letters`, --channel, --error-type or --all"
        )
    store = context.broker.dead_letters()
    for id in options.ids:
        try:
            store.order(id)
        except ValueError as error:
            options.error(str(error))
    return store


async def _chosen(context: Context, store: DeadLetterStore) -> Search:
    """Find the dead letters that the options choose."""
    options = context.options
    await _warn_of_no_channel(context, store)
    states = frozenset(State) - {State.BEGUN} if getattr(options, "again", False) else TO_DO
    filter = Filter(frozenset(options.ids), options.channel, options.error_type, states)
    search = Search(store, filter)
    await search.prepare()
    for id in search.sorted(filter.ids):
        state = search.states.of(id)
        if state not in states:
            raise CannotContinue(f"{id} {_WHY_NOT[state]}.")
    return search


_WHY_NOT = {
    State.REPLAYED: "was already replayed; replay --again sends it once more",
    State.DISCARDED: "was discarded; replay --again sends it anyway",
    State.BEGUN: "is being replayed; if that replay was interrupted, try again in a minute",
}


async def _dead_letters(search: Search) -> AsyncIterator[DeadLetter]:
    async for dead_letter, _ in search.dead_letters():
        yield dead_letter


async def _show(context: Context, search: Search, what: str) -> int:
    links = Links(context.settings.trace_url)
    number = 0
    async for dead_letter, state in search.dead_letters():
        begun = search.states.begun(dead_letter.id)
        print(as_text(dead_letter, state, links, begun=begun), end="\n\n")
        number += 1
    return _conclude(search, number, what)


def _conclude(search: Search, number: int, what: str, failed: int = 0) -> int:
    if search.counts[State.BEGUN]:
        print(
            f"Skipped: {search.counts[State.BEGUN]} whose replay began less than a minute ago",
            file=sys.stderr,
        )
    print(f"{number} {what}" + (f", {failed} not" if failed else ""))
    return 1 if failed else 0


async def _warn_of_no_channel(context: Context, store: DeadLetterStore) -> None:
    if not await store.exists(DEAD_LETTERS):
        print(
            f"There is no channel {DEAD_LETTERS} at {context.broker.url} (BROKER_URL).",
            file=sys.stderr,
        )
