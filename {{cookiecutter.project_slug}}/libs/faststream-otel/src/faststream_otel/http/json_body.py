"""Bodies in JSON that can be read in one way only, declared as JSON."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response, params
from fastapi.routing import APIRoute
from pydantic_core import from_json

from .errors import Refused


class JsonRoute(APIRoute):
    """Refuses other content types with a 415, and bad JSON with a 422.

    A page of another site may send text/plain and forms without asking first, but not
    application/json. NaN, lone surrogates, numbers beyond all bounds and other encodings than UTF-8
    are bad JSON: whoever reads the message next may take them otherwise.

    The routes of an `HttpService` are of this class; a router takes `route_class=JsonRoute`.
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
