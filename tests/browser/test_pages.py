"""Web pages in a real browser: who may connect to a hub on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from browser.browser import require_chromium, serving
from node_tools import INTEROP, require_node
from presence_adapters.server import HubThread
from presence_proto import HubConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser.browser import Pages

pytestmark = pytest.mark.long

JOINED, REFUSED = ["phx_reply", "presence_state"], 1006

KNOCK = """
const knock = (url) => new Promise((done) => {
  const socket = new WebSocket(url), heard = [];
  socket.onopen = () => socket.send(JSON.stringify(["1", "1", "room:x", "phx_join", {user_id: "page"}]));
  socket.onmessage = ({data}) => {
    heard.push(JSON.parse(data)[3]);
    if (heard.length == 2) { done(heard); socket.close(); }
  };
  socket.onclose = ({code}) => done(code);
});
"""


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    require_chromium()
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def hub(pages: Pages) -> Iterator[HubThread]:
    with HubThread(HubConfig(allowed_origins=(f"http://chat.example:{pages.server_port}",))) as running:
        yield running


def targets(hub: HubThread, *hosts: str) -> list[str]:
    return [f"ws://{host}:{hub.port}/socket/websocket?vsn=2.0.0" for host in hosts]


def heard(pages: Pages, hub: HubThread, page: str, home: Path, *hosts: str) -> Any:
    """What a page hears of the hub under each of these names: the first two events, or a close code."""
    urls = json.dumps(targets(hub, *hosts))
    return pages.visit(page, f"{KNOCK}report(await Promise.all({urls}.map(knock)));", home)


def test_a_page_of_another_origin_cannot_connect(pages: Pages, hub: HubThread, tmp_path: Path) -> None:
    """Not to loopback, nor under its own name, which it has rebound to loopback."""
    hosts = ["127.0.0.1", "localhost", "evil.example"]
    assert heard(pages, hub, "evil.example", tmp_path, *hosts) == [REFUSED] * 3
    assert hub.connections == []


def test_a_page_of_an_allowed_origin_can(pages: Pages, hub: HubThread, tmp_path: Path) -> None:
    assert heard(pages, hub, "chat.example", tmp_path, "127.0.0.1", "chat.example") == [JOINED] * 2


def test_a_page_of_another_port_of_loopback_can(pages: Pages, hub: HubThread, tmp_path: Path) -> None:
    assert heard(pages, hub, "localhost", tmp_path, "127.0.0.1", "localhost") == [JOINED] * 2


def test_a_frame_in_a_sandbox_cannot(pages: Pages, hub: HubThread, tmp_path: Path) -> None:
    """Its origin is `null`, although its page is of loopback."""
    (url,) = targets(hub, "127.0.0.1")
    inner = f"{KNOCK}knock({json.dumps(url)}).then((found) => parent.postMessage(found, '*'));"
    script = f"""
    onmessage = ({{data}}) => report(data);
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.srcdoc = "<script>" + {json.dumps(inner)} + "<" + "/script>";
    document.body.append(frame);
    """
    assert pages.visit("localhost", script, tmp_path) == REFUSED


def test_phoenix_js_in_a_page_is_present(pages: Pages, hub: HubThread, tmp_path: Path) -> None:
    require_node()  # npm has installed it then
    library = INTEROP / "node_modules" / "phoenix" / "priv" / "static" / "phoenix.mjs"
    pages.files["/phoenix.js"] = library.read_bytes()
    script = f"""
    const {{Socket, Presence}} = await import("/phoenix.js");
    const socket = new Socket("ws://127.0.0.1:{hub.port}/socket");
    socket.connect();
    const channel = socket.channel("room:phoenix", {{user_id: "ann", mood: "fine"}});
    const presence = new Presence(channel);
    const moods = () => presence.list((key, {{metas}}) => [key, metas[0].mood]);
    presence.onSync(() => moods().length && report(moods()));
    channel.join();
    """
    assert pages.visit("localhost", script, tmp_path) == [["ann", "fine"]]
