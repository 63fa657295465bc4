"""The end: everything stops by itself within its grace period, and loses nothing."""

import pytest

from .apis import Span
from .poll import poll_until
from .stack import Stack
from .stores import TraceStore

SIGTERM_EXIT = 128 + 15
SIGKILL_EXIT = 128 + 9

# 143 is a process that ended by the signal itself, as Java and uvicorn do when they have tidied up;
# 137 one that was killed at the end of its grace period.
ALLOWED = {
    # Having been queried, Tempo 3.0 never ends; its traces are on disk by then (the second test).
    "tempo": {0, SIGKILL_EXIT},
    # It always exits so when SIGTERM has ended it, after it has closed its streams.
    "nats": {1},
}


@pytest.mark.every_broker
@pytest.mark.ends_the_stack
def test_everything_stops(stack: Stack) -> None:
    running = stack.running()
    stack.stop()
    states = {name: stack.containers()[name]["State"] for name in running}
    assert not [name for name, state in states.items() if state["Running"] or state["OOMKilled"]]
    codes = {name: state["ExitCode"] for name, state in states.items()}
    assert {
        name: code
        for name, code in codes.items()
        if code not in ALLOWED.get(name, {0, SIGTERM_EXIT})
    } == {}


@pytest.mark.ends_the_stack
def test_traces_outlive_the_stop(
    stack: Stack, traces: dict[str, list[Span]], store: TraceStore
) -> None:
    if stack.stand_in:
        pytest.skip("the sink that stands in for Tempo keeps nothing")
    if store.in_memory:
        pytest.skip(f"{stack.traces} keeps traces in memory, as docs/traces.md says")
    stack.start(stack.traces)
    for spans in traces.values():
        poll_until(
            lambda spans=spans: len(store.trace(spans[0].trace_id)) == len(spans),  # type: ignore[misc]
            f"the trace after a restart of {stack.traces}",
        )
