"""Each broker, read and written to without the tested library."""

from e2e.baked import Baked

from ..channels import Channels
from .kafka import InKafka
from .nats import InNats
from .rabbitmq import Control, InRabbit


def channels_of(stack: Baked) -> Channels:
    """Return the channels of a running project."""
    host, port = stack.address(stack.broker_port)
    address = f"{host}:{port}"
    match stack.broker:
        case "kafka":
            return InKafka(address)
        case "nats":
            return InNats(address)
        case "rabbitmq":
            return InRabbit(address, stack.setting("BROKER_PASSWORD"), _rabbitmqctl(stack))
    raise AssertionError(f"the drills cannot read {stack.broker}")


def _rabbitmqctl(stack: Baked) -> Control:
    return lambda *arguments: stack.execute(stack.broker, "rabbitmqctl", *arguments)
