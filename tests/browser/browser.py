"""Chromium without a window, and the pages that it shows: a web server that hears what they find out."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60  # seconds for a browser to start, on a busy machine
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

_PAGE = """<!doctype html><title>page</title><script type="module">
const report = (found) => fetch("/report", {{method: "POST", mode: "no-cors", body: JSON.stringify(found)}});
{script}
</script>"""


def require_chromium() -> str:
    """The path of a Chromium. Skips the test without one, or fails it with `PRESENCE_REQUIRE_CHROMIUM=1`."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    reason = "there is no Chromium: nothing is known of web pages"
    if os.environ.get("PRESENCE_REQUIRE_CHROMIUM") == "1":
        pytest.fail(f"{reason} (PRESENCE_REQUIRE_CHROMIUM=1 does not allow to skip this)", pytrace=False)
    pytest.skip(reason)


class Pages(ThreadingHTTPServer):
    """Serves a page with a script, which calls `report(found)`, and other files, on 127.0.0.1."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = ""
        self.files: dict[str, bytes] = {}
        self.reports: queue.Queue[Any] = queue.Queue()

    @property
    def page(self) -> bytes:
        """The page as it is served."""
        return _PAGE.format(script=self.script).encode()

    def visit(self, host: str, script: str, home: Path) -> Any:
        """What a page of this host reports that runs `script`. Every name leads to 127.0.0.1."""
        self.script = script
        with _running(require_chromium(), f"http://{host}:{self.server_port}/", home):
            return self.reports.get(timeout=PATIENCE)


@contextmanager
def serving() -> Iterator[Pages]:
    """A server of pages that runs."""
    with Pages() as pages:
        thread = Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield pages
        finally:
            pages.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.files:
            self._answer(200, "text/javascript", self.server.files[path])
        elif path == "/":
            self._answer(200, "text/html", self.server.page)
        else:
            self._answer(404, "text/plain", b"")

    def do_POST(self) -> None:
        self.server.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(204, "text/plain", b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _running(chromium: str, url: str, home: Path) -> Iterator[None]:
    options = [
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--host-resolver-rules=MAP * 127.0.0.1",
        f"--user-data-dir={home}",
    ]
    with open(home / "output", "wb") as output:
        process = subprocess.Popen(
            [chromium, *options, url], stdout=output, stderr=output, env=os.environ | {"HOME": str(home)}
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
