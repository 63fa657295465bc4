"""Places orders with the running service."""

import random
from dataclasses import asdict, dataclass
from typing import Literal

from .. import web
from ..project import ENTRANCE_PORT, UserError, port

Outcome = Literal["succeeds", "is declined", "fails"]


@dataclass(frozen=True)
class Order:
    """What is sent; the service checks it. More than 100000 cents are declined, and no carrier
    goes to Antarctica (AQ): that order fails and ends in the dead letters."""

    sku: str = "keyboard"
    quantity: int = 1
    amount_cents: int = 12_900
    currency: str = "EUR"
    country: str = "FI"


@dataclass(frozen=True)
class Placed:
    """An accepted order. The trace id is empty where tracing is off."""

    order_id: str
    trace_id: str


ORDERS: dict[Outcome, Order] = {
    "succeeds": Order(),
    "is declined": Order(sku="server rack", amount_cents=250_000),
    "fails": Order(sku="ice axe", country="AQ"),
}


def mixed(declined: float = 0.1, failing: float = 0.02) -> Order:
    """Make a random order; of many, these shares are declined and fail."""
    draw = random.random()
    if draw < failing:
        return ORDERS["fails"]
    if draw < failing + declined:
        return ORDERS["is declined"]
    sku = random.choice(("keyboard", "mouse", "screen", "cable"))
    country = random.choice(("FI", "DE", "FR", "SE"))
    return Order(sku, random.randint(1, 3), random.randrange(900, 60_000), country=country)


def url() -> str:
    """Where the orders service is, whatever it runs in."""
    return f"http://127.0.0.1:{port(ENTRANCE_PORT)}"


def place(url: str, order: Order) -> Placed:
    """Place an order with the service at this address.

    Raises:
        UserError: Nobody answers there, or the order is refused; says why.
    """
    try:
        answer = web.post(f"{url}/orders", asdict(order))
    except OSError as error:
        raise UserError(
            f"No orders service answers at {url} ({reason(error)}): start it with `make up` or"
            " `make dev`, or set ORDERS_PORT to the port that it has."
        ) from error
    if answer.status != 202:
        raise UserError(f"The order was refused with status {answer.status}: {_errors(answer)}.")
    try:
        return Placed(answer.body["order_id"], answer.body["trace_id"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"What answers at {url} is not the orders service: set ORDERS_PORT to the port that it"
            " has."
        ) from error


def reason(error: OSError) -> str:
    """Say in words why there was no answer."""
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner).lower()


def _errors(answer: web.Answer) -> str:
    try:
        errors = answer.body["errors"]
        return "; ".join(f"{one['field']}: {one['reason']}".removeprefix(": ") for one in errors)
    except (KeyError, TypeError):
        return "no reason given (is this the orders service? ORDERS_PORT says where it is)"
