"""Free ports on 127.0.0.1 for processes of tests."""

import random
import socket

# Below 32768, where the system does not choose ports for client sockets.
RANGE = range(20000, 32768)


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports."""
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            break
    return found
