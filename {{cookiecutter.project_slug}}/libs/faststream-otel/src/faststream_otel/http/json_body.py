"""JSON request bodies: declared as JSON, and unambiguous."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response, params
from fastapi.routing import APIRoute
from pydantic_core import from_json

from .errors import Refused


class JsonRoute(APIRoute):
    """Refuses other content types with a 415, and bad JSON with a 422.

    Browsers let another site's page send text/plain and forms without a CORS preflight, but not
    application/json. NaN, lone surrogates, numbers out of range and encodings other than UTF-8 are
    bad JSON, because consumers of the message may read them differently.

    `HttpService` uses this class for its routes; give `route_class=JsonRoute` to your own routers.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None or isinstance(self.body_field.field_info, params.Form):
            return handle

        async def checked(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            lines = request.headers.getlist("content-type")
            kinds = {line.partition(";")[0].strip().lower() for line in lines}
            if await request.body() and kinds != {"application/json"}:
                raise Refused(415, "body", "is not application/json (Content-Type)")
            return await handle(request)

        return checked


class _JsonRequest(Request):
    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise Refused(422, "body", str(error)) from None
