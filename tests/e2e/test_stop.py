"""The end: everything stops by itself within its grace period."""

import pytest

from .stack import Stack

SIGTERM_EXIT = 128 + 15


@pytest.mark.ends_the_stack
def test_everything_stops_in_order(stack: Stack) -> None:
    running = stack.running()
    stack.stop()
    states = {name: stack.containers()[name]["State"] for name in running}
    assert not [name for name, state in states.items() if state["Running"] or state["OOMKilled"]]
    # 137 is a container that was killed at the end of its grace period. 143 is one that ended by
    # the signal itself, as Java and uvicorn do after they have tidied up.
    codes = {name: state["ExitCode"] for name, state in states.items()}
    assert {name: code for name, code in codes.items() if code not in (0, SIGTERM_EXIT)} == {}
