"""A server on loopback that tells every client the same: some when it joins, and the rest on demand.

    python -m benchmarks.feeder TEXTS UNTIMED

It prints `{"port": …}`. Who joins gets the first `UNTIMED` lines of the file, and who says a `chat_message`
gets the rest. At the end of either comes a `chat_message`, by which the client knows that it has all.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.workloads import TOPIC, envelope
from presence_proto.websocket import Closed, HandshakeRequest, TextMessage, WebSocket
from presence_proto.websocket.frames import server_frame

DONE = {"user_id": "feeder", "display_name": "Feeder", "channel": "all", "content": "done"}


class Feeder:
    """One client's server, in a thread."""

    def __init__(self, sock: socket.socket, texts: list[str], untimed: int) -> None:
        self._sock = sock
        done = {"type": "broadcast", "event": "chat_message", "payload": DONE | {"timestamp": "2026-05-04"}}
        vsn = "2.0.0" if texts[0].startswith("[") else "1.0.0"
        self._v1 = vsn == "1.0.0"
        end = envelope(vsn, TOPIC, "broadcast", done)
        self._before = self._frames([*texts[:untimed], end])
        self._after = self._frames([*texts[untimed:], end])
        self._websocket = WebSocket.server(max_message_size=1 << 20)

    @staticmethod
    def _frames(texts: list[str]) -> bytes:
        return b"".join(server_frame(text.encode(), text=True) for text in texts)

    def run(self) -> None:
        """Serve it until it goes."""
        with self._sock:
            while data := self._sock.recv(65536):
                self._websocket.receive_data(data)
                while (event := self._websocket.next_event()) is not None:
                    if isinstance(event, HandshakeRequest):
                        self._websocket.accept()
                    elif isinstance(event, TextMessage):
                        self._answer(event.data)
                    elif isinstance(event, Closed):
                        self._sock.sendall(self._websocket.data_to_send())
                        return
                self._sock.sendall(self._websocket.data_to_send())

    def _answer(self, text: str) -> None:
        message: Any = json.loads(text)
        if self._v1:
            names = ("join_ref", "ref", "topic", "event", "payload")
            message = [message.get(name) for name in names]
        join_ref, ref, topic, event, payload = message
        if ref is not None:
            reply: Any = {"status": "ok", "response": {"postgres_changes": []} if event == "phx_join" else {}}
            answer: Any = [join_ref, ref, topic, "phx_reply", reply]
            if self._v1:
                answer = {"topic": topic, "event": "phx_reply", "ref": ref, "payload": reply}
            self._websocket.send_text(json.dumps(answer))
        if event == "phx_join":
            self._sock.sendall(self._websocket.data_to_send() + self._before)
        elif event == "broadcast" and payload["event"] == "chat_message":
            self._sock.sendall(self._websocket.data_to_send() + self._after)


def main(path: str, untimed: str) -> None:
    """Listen until the process is ended."""
    texts = Path(path).read_text("utf-8").splitlines()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=Feeder(sock, texts, int(untimed)).run, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
