"""The OpenAPI document of the orders service, made from its contracts."""

from typing import Any

from pydantic.json_schema import models_json_schema

from .contracts import OrderAccepted, OrderRequest
from .idempotency_key import KEY_PATTERN, MAX_KEY_CHARACTERS

_ERRORS = {
    "type": "object",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        }
    },
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1.0."""
    references, schemas = models_json_schema(
        [(OrderRequest, "validation"), (OrderAccepted, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "orders", "version": "1"},
        "paths": {
            "/orders": {
                "post": {
                    "summary": "Place an order",
                    "operationId": "placeOrder",
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "description": "With the same key, trying again is the same order",
                            "schema": {
                                "type": "string",
                                "pattern": KEY_PATTERN,
                                "maxLength": MAX_KEY_CHARACTERS,
                            },
                        }
                    ],
                    "requestBody": {
                        "required": True,
                        "content": _json(references[OrderRequest, "validation"]),
                    },
                    "responses": {
                        "202": {
                            "description": "Accepted, and on its way",
                            "content": _json(references[OrderAccepted, "serialization"]),
                        },
                        "400": _problem(
                            "The body is incomplete, its length is given in two ways, or the key "
                            "is not valid"
                        ),
                        "408": _problem("The body did not come in time"),
                        "409": _problem("The first request with this key is still being answered"),
                        "413": _problem("The body is too large"),
                        "415": _problem("The body is no application/json, or is compressed"),
                        "422": _problem(
                            "The body is not an order: which field, and why; or the key was sent "
                            "with another order before"
                        ),
                        "503": {
                            **_problem("The broker is not available, or too many requests at once"),
                            "headers": {
                                "Retry-After": {
                                    "description": "Seconds",
                                    "schema": {"type": "integer"},
                                }
                            },
                        },
                    },
                }
            }
        },
        "components": {"schemas": {**schemas.get("$defs", {}), "Errors": _ERRORS}},
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": _json({"$ref": "#/components/schemas/Errors"}),
    }
