"""The code that runs for every message, as little else around it as possible.

    python -m benchmarks.hot_paths NAME COUNT

`benchmarks.instructions` runs this, and counts what the processor does.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from benchmarks import workloads
from benchmarks.contestants.ours import Presence, Realtime
from benchmarks.plain_client import frame, join_as, upgrade, user_id
from benchmarks.workloads import TOPIC
from presence_proto import ConnId, Hub

USERS, CROWD = 200, 20_000
"""In the rosters of the clients."""
MEMBERS = 20
"""In the topic of the hub."""
MOST = 1_000
"""So many diffs are made, whatever the count: two runs have to prepare the same."""


def client_text(count: int) -> Callable[[], object]:
    """RealtimeClient: the text of a diff to events."""
    return _client(Realtime(text=True), count)


def client_crowd(count: int) -> Callable[[], object]:
    """RealtimeClient: the same in a room of 20,000."""
    return _client(Realtime(text=True), count, CROWD)


def client_bytes(count: int) -> Callable[[], object]:
    """RealtimeClient: the bytes of a diff to events."""
    return _client(Realtime(text=False), count)


def presence_bytes(count: int) -> Callable[[], object]:
    """PresenceClient: the bytes of a diff to events."""
    return _client(Presence(), count)


def _client(contestant: Realtime | Presence, count: int, users: int = USERS) -> Callable[[], object]:
    room = workloads.steady(1, users, MOST)
    texts = room.texts("2.0.0")
    contestant.load(texts[: room.untimed], [TOPIC])
    contestant.prepare(texts[room.untimed : room.untimed + count])
    return contestant.run


def _hub(members: int) -> Hub:
    hub = Hub()
    for number in range(members):
        hub.transport_opened(ConnId(number), now=0)
        for data in (upgrade(), join_as(user_id(number))):
            hub.receive_data(ConnId(number), data, now=0)
            _drain(hub)
    return hub


def _drain(hub: Hub) -> None:
    while hub.next_output() is not None:
        pass


def hub_heartbeat(count: int) -> Callable[[], object]:
    """Hub: a heartbeat and its reply."""
    hub = _hub(1)
    beat = frame(None, "7", "phoenix", "heartbeat", {})

    def run() -> None:
        for _ in range(count):
            hub.receive_data(ConnId(0), beat, now=1)
            _drain(hub)

    return run


def hub_broadcast(count: int) -> Callable[[], object]:
    """Hub: a broadcast of one member to 20."""
    hub = _hub(MEMBERS)
    payload = {"type": "broadcast", "event": "chat_message", "payload": {"content": "Is anybody there?"}}
    say = frame("1", None, TOPIC, "broadcast", payload)

    def run() -> None:
        for _ in range(count):
            hub.receive_data(ConnId(0), say, now=1)
            _drain(hub)

    return run


HOT_PATHS: dict[str, tuple[Callable[[int], Callable[[], object]], int]] = {
    "client-text": (client_text, 500),
    "client-crowd": (client_crowd, 500),
    "client-bytes": (client_bytes, 500),
    "presence-bytes": (presence_bytes, 500),
    "hub-heartbeat": (hub_heartbeat, 500),
    "hub-broadcast": (hub_broadcast, 100),
}
"""What gets ready to do it so many times, and how often is enough to count it."""


def main(name: str, count: str) -> None:
    """Do it."""
    prepare, _ = HOT_PATHS[name]
    run = prepare(int(count))
    # A collection counts what is in memory, and not what is done here.
    gc.disable()
    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
