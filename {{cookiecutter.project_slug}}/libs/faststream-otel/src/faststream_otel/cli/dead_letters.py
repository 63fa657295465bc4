"""The commands `dead-letters`, `replay` and `discard`: their options, and how they end.

Exit codes: 0 done, also when there was nothing to do; 1 not, or not all of it; 2 a bad argument.
Results are on stdout, all else on stderr.
"""

import argparse
import asyncio
import heapq
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

from ...UNKNOWN.P.channels import DEAD_LETTERS
from ..kafka.broker import Unreachable
from ..kafka.dead_letters import DeadLetterTopic, NotSent
from ..messages.dead_letters.ledger import TO_DO, State
from ..messages.dead_letters.letter import Letter, Position
from ..messages.dead_letters.replay import Replay, discard
from ..messages.dead_letters.search import NotThereError, Search, Wanted
from ..messages.dead_letters.show import INDENT, Links, Summary, as_json, as_text, clean
from ..settings import Settings
from ..telemetry import Telemetry

Command: TypeAlias = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

SERVICE_NAME = "replay"
"""Of the telemetry. Not the name of the topic, beside which the boards draw it."""
SHOWN = 20
FLUSH_SECONDS = 5.0


class _CannotError(Exception):
    """What stands in the way, in one sentence."""


def add_to(commands: Subparsers) -> None:
    """Add these commands to those of the program."""
    letters = _add(commands, "dead-letters", _list, "list messages that were given up, and why")
    letters.add_argument("--all", action="store_true", help="also those replayed or discarded")
    letters.add_argument("--json", action="store_true", help="one JSON object a line, with body")
    letters.add_argument("--body", action="store_true", help="show headers and body too")
    letters.add_argument(
        "--limit",
        type=_count,
        metavar="NUMBER",
        help=f"only so many of the newest (default: {SHOWN}, with --json all)",
    )
    again = _add(commands, "replay", _replay, "send messages back to the topic they came from")
    _add_choice(again)
    again.add_argument("--again", action="store_true", help="also if replayed or discarded before")
    again.add_argument("--to", metavar="TOPIC", help="send them to this topic instead")
    _add_choice(_add(commands, "discard", _discard, "mark messages that nobody will send back"))


def _add(commands: Subparsers, name: str, run: Command, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    command.set_defaults(run=lambda options: _run(run, options))
    command.add_argument(
        "--topic", default="", metavar="TOPIC", help="only those that came from this topic"
    )
    command.add_argument(
        "--error-type", default="", metavar="CLASS", help="only those with this error"
    )
    return command


def _add_choice(command: argparse.ArgumentParser) -> None:
    command.set_defaults(error=command.error)
    command.add_argument(
        "letters",
        nargs="*",
        type=_position,
        metavar="partition/offset",
        help="as `dead-letters` names them",
    )
    command.add_argument("--all", action="store_true", help="all that are open")
    command.add_argument("--dry-run", action="store_true", help="only show which these are")


def _position(text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 to 1000000")
    return int(text)


def _check(options: argparse.Namespace) -> None:
    by_kind = options.all or options.topic or options.error_type
    if options.letters and by_kind:
        options.error("name letters, or choose them by --all, --topic, --error-type; not both")
    if not (options.letters or by_kind):
        options.error("say which: <partition>/<offset> …, --topic, --error-type, or --all")


def _run(command: Command, options: argparse.Namespace) -> int:
    settings = Settings()
    told = logging.StreamHandler(sys.stderr)
    told.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[told], format="%(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it raises is told here
    try:
        return asyncio.run(_ended_by_sigterm(command(options, settings)))
    except (_CannotError, NotThereError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads this has seen enough; without this Python complains again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if command is _list else 1
    except Unreachable as error:
        reason = str(error) or type(error).__name__
        print(f"The broker at {settings.broker_url} (BROKER_URL): {reason}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def _ended_by_sigterm(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(command)
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _list(options: argparse.Namespace, settings: Settings) -> int:
    states = frozenset(State) if options.all else TO_DO | {State.BEGUN}
    wanted = Wanted(topic=options.topic, error_type=options.error_type, states=states)
    async with DeadLetterTopic(settings) as topic:
        _warn_of_no_topic(topic, settings)
        search = Search(topic, wanted)
        await search.prepare()
        limit = options.limit or (None if options.json else SHOWN)
        links = Links(settings.trace_url)
        if options.json:
            async for letter, state in _newest(search, limit, Summary()):
                print(as_json(letter, state, links), flush=True)
            return 0
        summary = Summary()
        shown = 0
        async for letter, state in _newest(search, limit, summary, bodies=options.body):
            begun = search.ledger.begun(letter.position)
            print(as_text(letter, state, links, begun=begun, body=options.body), end="\n\n")
            shown += 1
        _summarize(summary, shown, search, options)
    return 0


async def _newest(
    search: Search, limit: int | None, summary: Summary, *, bodies: bool = True
) -> AsyncIterator[tuple[Letter, State]]:
    """The newest of them, the newest last; all of them as they are found if there is no limit."""
    kept: list[tuple[float, Position, Letter, State]] = []
    async for letter, state in search.letters():
        summary.add(letter)
        if limit is None:
            yield letter, state
            continue
        if not bodies:  # which may be large
            letter = Letter(replace(letter.record, value=None))
        item = (letter.record.timestamp, letter.position, letter, state)
        if len(kept) < limit:
            heapq.heappush(kept, item)
        else:
            heapq.heappushpop(kept, item)
    for _, _, letter, state in sorted(kept, key=lambda one: one[:2]):
        yield letter, state


def _summarize(summary: Summary, shown: int, search: Search, options: argparse.Namespace) -> None:
    matching = " that match" if options.topic or options.error_type else ""
    if not summary.total:
        print(f"No {'' if options.all else 'open '}dead letters{matching}.")
    else:
        what = "letters" if options.all else "open"
        print(f"{summary.total} {what}{matching}: {summary}")
        if shown < summary.total:
            print(f"Shown: the newest {shown} (--limit shows more)")
    over = [(search.counts[one], one.value) for one in (State.REPLAYED, State.DISCARDED)]
    if not options.all and any(number for number, _ in over):
        done = " and ".join(f"{number} {name}" for number, name in over if number)
        print(f"Not shown: {done} (--all shows them too)")


async def _replay(options: argparse.Namespace, settings: Settings) -> int:
    _check(options)
    async with DeadLetterTopic(settings) as topic:
        search = await _chosen(options, settings, topic)
        if options.to and options.to not in topic.topics:
            raise _CannotError(f"There is no topic {options.to} (--to).")
        if options.dry_run:
            return await _show(search, settings, "would be sent")
        # One run is no series; each has an instance of its own, which would be kept for weeks.
        os.environ.setdefault("OTEL_METRICS_EXPORTER", "none")
        try:
            telemetry = Telemetry(SERVICE_NAME, make_global=False)
        except ValueError as error:
            raise _CannotError(str(error)) from error
        try:
            tracer = telemetry.tracer_provider.get_tracer(__name__)
            return await _send(Replay(topic, tracer, NotSent, options.to), search, settings)
        finally:
            await telemetry.shutdown(FLUSH_SECONDS)


async def _send(replay: Replay, search: Search, settings: Settings) -> int:
    links = Links(settings.trace_url)
    sent = failed = 0
    async for outcome in replay.send(_letters(search)):
        position = outcome.letter.position
        if outcome.reason:
            failed += 1
            print(f"{position} not sent: {clean(outcome.reason)}", file=sys.stderr)
        else:
            sent += 1
            print(f"{position}  sent to {outcome.topic}")
            print(INDENT + (links.to(outcome.trace_id) or "no trace"))
    return _conclude(search, sent, "sent", failed)


async def _discard(options: argparse.Namespace, settings: Settings) -> int:
    _check(options)
    async with DeadLetterTopic(settings) as topic:
        search = await _chosen(options, settings, topic)
        if options.dry_run:
            return await _show(search, settings, "would be discarded")
        number = 0
        async for letter in discard(topic, _letters(search)):
            print(f"{letter.position}  discarded")
            number += 1
    return _conclude(search, number, "discarded")


async def _chosen(
    options: argparse.Namespace, settings: Settings, topic: DeadLetterTopic
) -> Search:
    """What the options choose, of the letters that there are."""
    named = frozenset(options.letters)
    _warn_of_no_topic(topic, settings)
    again = getattr(options, "again", False)
    states = frozenset(State) - {State.BEGUN} if again else TO_DO
    search = Search(topic, Wanted(named, options.topic, options.error_type, states))
    await search.prepare()
    for position in sorted(named):
        state = search.ledger.state(position)
        if state not in states:
            raise _CannotError(f"{position} {_WHY_NOT[state]}.")
    return search


_WHY_NOT = {
    State.REPLAYED: "was replayed already; replay --again sends it once more",
    State.DISCARDED: "was discarded; replay --again sends it all the same",
    State.BEGUN: "is being replayed just now; if that does not end, it is free in a minute",
}


async def _letters(search: Search) -> AsyncIterator[Letter]:
    async for letter, _ in search.letters():
        yield letter


async def _show(search: Search, settings: Settings, what: str) -> int:
    links = Links(settings.trace_url)
    number = 0
    async for letter, state in search.letters():
        begun = search.ledger.begun(letter.position)
        print(as_text(letter, state, links, begun=begun), end="\n\n")
        number += 1
    return _conclude(search, number, what)


def _conclude(search: Search, number: int, what: str, failed: int = 0) -> int:
    if search.counts[State.BEGUN]:
        print(
            f"Left alone: {search.counts[State.BEGUN]} whose replay was begun within a minute",
            file=sys.stderr,
        )
    print(f"{number} {what}" + (f", {failed} not" if failed else ""))
    return 1 if failed else 0


def _warn_of_no_topic(topic: DeadLetterTopic, settings: Settings) -> None:
    if DEAD_LETTERS not in topic.topics:
        print(
            f"There is no topic {DEAD_LETTERS} at {settings.broker_url} (BROKER_URL).",
            file=sys.stderr,
        )
