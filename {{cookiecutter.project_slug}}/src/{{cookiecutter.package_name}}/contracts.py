"""The messages between the services. A breaking change needs a new version, and a new class."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: Any) -> Any:
    """Accept 2.0 as the integer 2, like JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
Cents = Annotated[
    int, Field(gt=0, le=100_000_000, description="Amount in the currency's cents"), Whole
]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217 code")]
Country = Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2 code")]


class OrderRequest(BaseModel):
    """The body of `POST /orders`."""

    model_config = ConfigDict(
        strict=True,  # "2" and true are not numbers
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sku": "keyboard",
                    "quantity": 1,
                    "amount_cents": 12900,
                    "currency": "EUR",
                    "country": "FI",
                }
            ]
        },
    )

    sku: str = Field(min_length=1, max_length=64)
    quantity: Annotated[int, Field(ge=1, le=1000), Whole] = 1
    amount_cents: Cents
    currency: Currency = "EUR"
    country: Country


class OrderAccepted(BaseModel):
    """The response to an accepted order."""

    order_id: str
    trace_id: str = Field(description="32 lower-case hex digits; empty when tracing is off")


class Event(BaseModel):
    """The fields of every event: its order, and the version of its contract."""

    order_id: str
    version: Literal[1] = 1


class OrderPlaced(Event):
    sku: str
    quantity: int
    amount_cents: Cents
    currency: Currency
    country: Country


class PaymentAuthorized(Event):
    authorization_id: str
    sku: str
    quantity: int
    country: Country


class PaymentDeclined(Event):
    reason: Literal["limit_exceeded"]


class OrderDispatched(Event):
    carrier: str
    tracking_id: str
