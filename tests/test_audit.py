"""`make audit` fails on a known vulnerability, names it, and accepts a waiver.

A local server replaces the OSV database.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from bakery import Bakery

FLAW = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "modified": "2026-01-01T00:00:00Z",
    "summary": "A flaw for this test",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "uvicorn"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """Has one vulnerability, of uvicorn."""

    asked: set[str]

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        names = [query["package"]["name"] for query in queries]
        self.asked.update(names)
        flawed = {"vulns": [{"id": FLAW["id"], "modified": FLAW["modified"]}]}
        self._answer({"results": [flawed if name == "uvicorn" else {} for name in names]})

    def do_GET(self) -> None:
        self._answer(FLAW)

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[HTTPServer]:
    Database.asked = set()
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def audit(project: Path, database: HTTPServer, bakery: Bakery) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "audit", f"ARGS=--service-url http://127.0.0.1:{database.server_port}/"],
        cwd=project,
        env=bakery.environment(),
        capture_output=True,
        encoding="utf-8",
    )


def test_a_flaw_fails_it_unless_it_is_waived(
    database: HTTPServer, bakery: Bakery, tmp_path: Path
) -> None:
    project = bakery.bake({}, tmp_path)
    found = audit(project, database, bakery)
    assert found.returncode != 0
    assert str(FLAW["id"]) in found.stdout + found.stderr
    assert {"faststream", "aiokafka", "pytest"} <= Database.asked  # what tests need, too

    pyproject = project / "pyproject.toml"
    text = pyproject.read_text("utf-8")
    assert "\nignore = []" in text
    pyproject.write_text(text.replace("\nignore = []", f'\nignore = ["{FLAW["id"]}"]'), "utf-8")
    waived = audit(project, database, bakery)
    assert waived.returncode == 0, waived.stdout + waived.stderr
