"""What a service refuses over HTTP, and with which answer."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Form, HTTPException
from faststream_otel.http import HttpService, JsonRoute, Refused
from faststream_otel.kafka import KafkaSettings
from faststream_otel.messages.broker import TooLarge, Unavailable
from opentelemetry.trace import StatusCode
from pydantic import BaseModel

from ..memory import in_memory
from ..spans import named

MAX_REQUESTS = 2
JSON = {"content-type": "application/json"}
DONE = {"type": "http.disconnect"}

Message = dict[str, Any]
App = Callable[..., Awaitable[None]]


class Parcel(BaseModel):
    weight: int


@pytest.fixture
def gate() -> asyncio.Event:
    """Until it is open, handling takes its time."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
def service(gate: asyncio.Event) -> HttpService:
    settings = KafkaSettings(
        max_body_bytes=1000, body_timeout_seconds=0.2, max_requests=MAX_REQUESTS
    )
    service = HttpService("scales", settings)

    @service.http.post("/")
    async def weigh(parcel: Parcel) -> int:
        """Say what it weighs."""
        await gate.wait()
        return parcel.weight

    return service


@pytest.fixture
def app(service: HttpService) -> App:
    return service.http


def client(service: HttpService) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


class Client:
    """Sends chunks as a server would hand them on; counts those that were taken."""

    def __init__(self, *chunks: bytes, then: Message | None = None) -> None:
        self.taken = 0
        self._messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks) or bool(then)}
            for number, chunk in enumerate(chunks, 1)
        ]
        self._messages += [then] if then else []

    async def receive(self) -> Message:
        if self.taken == len(self._messages):
            await asyncio.Event().wait()  # nothing more comes
        self.taken += 1
        return self._messages[self.taken - 1]


async def ask(
    app: App,
    client: Client,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = JSON,
    version: str = "1.1",
) -> tuple[int, bytes, dict[str, str]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    lines = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    if not {"content-length", "transfer-encoding"} & {name for name, _ in lines}:
        lines.append(("transfer-encoding", "chunked"))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "http_version": version,
        "headers": [(name.encode(), value.encode()) for name, value in lines],
    }
    await asyncio.wait_for(app(scope, client.receive, send), 5)
    start, body = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], body["body"], answered


def said(body: bytes) -> tuple[str, str]:
    (error,) = json.loads(body)["errors"]
    return error["field"], error["reason"]


async def test_a_body_in_pieces_is_one(app: App) -> None:
    status, body, _ = await ask(app, Client(b'{"wei', b'ght": ', b"5}"))
    assert (status, body) == (200, b"5")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
async def test_only_json_is_taken(app: App, kind: str, expected: int) -> None:
    headers = {"content-type": kind} if kind else {}
    status, body, _ = await ask(app, Client(b'{"weight": 5}'), headers)
    assert status == expected
    if expected == 415:
        assert "application/json" in said(body)[1]


async def test_a_second_content_type_is_not_overlooked(app: App) -> None:
    for kinds in (["text/plain", "application/json"], ["application/json", "text/plain"]):
        lines = [("content-type", kind) for kind in kinds]
        assert (await ask(app, Client(b'{"weight": 5}'), lines))[0] == 415


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "br", "identity, gzip", "unheard-of"])
async def test_a_compressed_body_is_refused_with_the_reason(app: App, coding: str) -> None:
    client = Client(*[b"\x1f\x8b"] * 5)
    status, body, headers = await ask(app, client, JSON | {"content-encoding": coding})
    assert (status, said(body)) == (415, ("body", "is compressed (Content-Encoding)"))
    assert headers["accept-encoding"] == "identity"
    assert client.taken == 5  # or a client that sends all before it reads would miss the answer


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({"content-encoding": "gzip"}, 415), ({"content-length": "1001"}, 413)],
)
async def test_a_client_that_expects_100_continue_is_answered_at_once(
    app: App, headers: dict[str, str], expected: int
) -> None:
    client = Client(b"")
    status, _, _ = await ask(app, client, JSON | {"expect": "100-continue"} | headers)
    assert status == expected
    assert client.taken == 0


async def test_identity_is_no_compression(app: App) -> None:
    headers = JSON | {"content-encoding": "Identity"}
    assert (await ask(app, Client(b'{"weight": 5}'), headers))[0] == 200


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"content-length": "13", "transfer-encoding": "chunked"}, "1.1"),
        ({"content-length": "0", "transfer-encoding": "chunked"}, "1.1"),
        ({"transfer-encoding": "chunked"}, "1.0"),
    ],
)
async def test_a_body_of_two_lengths_is_refused(
    app: App, headers: dict[str, str], version: str
) -> None:
    client = Client(b'{"weight": 5}')
    status, body, answered = await ask(app, client, JSON | headers, version)
    assert (status, answered["connection"]) == (400, "close")
    assert "Transfer-Encoding" in said(body)[1]
    assert client.taken == 0


@pytest.mark.parametrize(("size", "expected"), [(1000, 200), (1001, 413)])
async def test_the_limit_is_exact(app: App, size: int, expected: int) -> None:
    body = b'{"weight": 5}'.ljust(size)
    assert (await ask(app, Client(body[:500], body[500:])))[0] == expected


async def test_a_slightly_too_large_body_is_read_so_that_the_response_is_read(
    app: App,
) -> None:
    client = Client(*[b" " * 500] * 10)
    status, body, headers = await ask(app, client)
    assert (status, said(body)) == (413, ("body", "larger than 1000 bytes"))
    assert headers["connection"] == "close"
    assert client.taken == 10


async def test_far_too_much_is_cut_off(app: App) -> None:
    client = Client(*[b" " * 500] * 1000)
    assert (await ask(app, client))[0] == 413
    assert client.taken < 20

    announced = Client(b" ")
    assert (await ask(app, announced, JSON | {"content-length": "9999999999"}))[0] == 413
    assert announced.taken == 0


async def test_a_body_that_does_not_come_is_not_waited_for(app: App) -> None:
    client = Client(b'{"weight', b"", then={"type": "http.request", "more_body": True})
    status, body, headers = await ask(app, client)
    assert (status, said(body)) == (408, ("body", "did not arrive within 0.2 s"))
    assert headers["connection"] == "close"


async def test_a_client_that_hangs_up_is_not_a_server_error(
    service: HttpService, caplog: pytest.LogCaptureFixture
) -> None:
    async with in_memory(service) as exporter:
        assert (await ask(service.app, Client(b"{", then=DONE)))[0] == 400
        span = named(exporter.get_finished_spans(), "POST /")
    assert span.status.status_code is StatusCode.UNSET
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_refusal_says_what_is_wrong_without_what_was_sent(app: App) -> None:
    status, body, _ = await ask(app, Client(b'{"weight": "my secret"}'))
    assert status == 422
    assert said(body)[0] == "weight"
    assert b"my secret" not in body


async def test_too_many_requests_at_once_are_refused(app: App, gate: asyncio.Event) -> None:
    gate.clear()
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(ask(app, Client(b'{"weight": 5}'))) for _ in range(MAX_REQUESTS)]
        await asyncio.sleep(0.05)
        status, _, headers = await ask(app, Client(b'{"weight": 5}'))
        assert status == 503
        assert headers["retry-after"] == "1"
        gate.set()
    assert [one.result()[0] for one in first] == [200, 200]
    assert (await ask(app, Client(b'{"weight": 5}')))[0] == 200  # there is room again


async def test_a_router_can_require_json(service: HttpService) -> None:
    router = APIRouter(prefix="/belt", route_class=JsonRoute)

    @router.post("/parcels/{number}")
    async def weigh(number: int, parcel: Parcel) -> int:
        return parcel.weight

    service.http.include_router(router)
    async with client(service) as http:
        good = await http.post("/belt/parcels/1", json={"weight": 5})
        text = await http.post("/belt/parcels/1", content=b'{"weight": 5}')
        odd = await http.post("/belt/parcels/1", content=b'{"weight": NaN}', headers=JSON)
        path = await http.post("/belt/parcels/x", json={"weight": 5})
    assert [answer.status_code for answer in (good, text, odd, path)] == [200, 415, 422, 422]
    assert said(path.content)[0] == "number"


async def test_routes_without_json_stay_as_they_are(service: HttpService) -> None:
    @service.http.post("/ping")
    async def ping() -> str:
        return "pong"

    @service.http.post("/form")
    async def form(weight: Annotated[int, Form()]) -> int:
        return weight

    @service.http.post("/maybe")
    async def maybe(parcel: Parcel | None = None) -> int:
        return parcel.weight if parcel else 0

    async with client(service) as http:
        assert (await http.post("/ping")).json() == "pong"
        assert (await http.post("/form", data={"weight": "5"})).json() == 5
        assert (await http.post("/maybe")).json() == 0


@pytest.mark.parametrize(
    ("error", "status", "field", "headers"),
    [
        (Unavailable("no broker"), 503, "", {"retry-after": "5"}),
        (TooLarge(), 413, "body", {}),
        (Refused(409, "weight", "was another one"), 409, "weight", {}),
        (LookupError("my secret"), 500, "", {}),
    ],
    ids=str,
)
async def test_what_a_route_raises_is_answered_in_one_shape(
    service: HttpService, error: Exception, status: int, field: str, headers: dict[str, str]
) -> None:
    @service.http.get("/broken")
    async def broken() -> None:
        raise error

    async with client(service) as http:
        answer = await http.get("/broken")
    assert answer.status_code == status
    assert said(answer.content)[0] == field
    assert b"my secret" not in answer.content
    assert answer.headers.items() >= headers.items()


async def test_an_answer_that_has_no_body_gets_none(service: HttpService) -> None:
    @service.http.get("/same")
    async def same() -> None:
        raise HTTPException(304, headers={"ETag": '"1"'})

    async with client(service) as http:
        answer = await http.get("/same")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')
    assert "content-length" not in answer.headers


async def test_a_service_may_answer_its_own_way(service: HttpService) -> None:
    @service.http.exception_handler(Exception)
    async def own(request: object, error: Exception) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("sorry", 500)

    @service.http.get("/broken")
    async def broken() -> None:
        raise LookupError

    async with client(service) as http:
        assert (await http.get("/broken")).text == "sorry"


async def test_where_nothing_is_served(service: HttpService) -> None:
    async with client(service) as http:
        nowhere, method = await http.get("/nowhere"), await http.get("/")
    assert (nowhere.status_code, said(nowhere.content)) == (404, ("", "Not Found"))
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert said(method.content) == ("", "Method Not Allowed")


@pytest.mark.parametrize("pages", [False, True])
async def test_documents_are_served_and_pages_if_enabled(pages: bool) -> None:
    service = HttpService("scales", KafkaSettings(api_pages=pages))
    async with client(service) as http:
        asyncapi, openapi = await http.get("/asyncapi.json"), await http.get("/openapi.json")
        found = [(await http.get(path)).status_code for path in ("/asyncapi", "/docs")]
        tried = (await http.post("/asyncapi/try", json={})).status_code
    assert asyncapi.json()["info"]["title"] == openapi.json()["info"]["title"] == "scales service"
    assert found == ([200, 200] if pages else [404, 404])
    assert tried == 404  # it would publish whatever anybody sends


async def test_openapi_describes_every_refusal(service: HttpService) -> None:
    document = service.http.openapi()
    responses = document["paths"]["/"]["post"]["responses"]
    assert {*responses} == {"200", "400", "408", "409", "413", "415", "422", "503"}
    schemas = {
        response["content"]["application/json"]["schema"]["$ref"]
        for status, response in responses.items()
        if status != "200"
    }
    assert schemas == {"#/components/schemas/Errors"}
    assert "Retry-After" in responses["503"]["headers"]


async def test_openapi_names_an_operation_after_its_function(service: HttpService) -> None:
    @service.http.get("/things/{number}")
    async def read_thing(number: int) -> None: ...

    operation = service.http.openapi()["paths"]["/things/{number}"]["get"]
    assert operation["operationId"] == "read_thing"


PLAIN = """
import sys
from faststream_otel import Service
from faststream_otel.kafka import KafkaSettings
Service("plain", KafkaSettings())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"fastapi", "starlette"}))
"""


def test_a_service_without_routes_imports_no_fastapi() -> None:
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
