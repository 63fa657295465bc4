"""Ports of 127.0.0.1 for what the tests start."""

import random
import socket

# Client sockets take theirs from 32768 upwards: a port of ours belongs below.
RANGE = range(20000, 32768)


def free_ports(count: int) -> list[int]:
    """Return so many different ports that nobody listens on."""
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            break
    return found
