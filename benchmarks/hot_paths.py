"""The code that runs for every message, as little else around it as possible.

    python -m benchmarks.hot_paths NAME COUNT

`benchmarks.instructions` runs this, and counts what the processor does.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial

from benchmarks import workloads
from benchmarks.contestants.child import MemoryContestant
from benchmarks.contestants.on_loop import OneAtATime
from benchmarks.contestants.ours import Presence, Realtime
from benchmarks.contestants.saying import Ours
from benchmarks.plain_client import frame, join_as, track, upgrade, user_id
from benchmarks.workloads import TOPIC, Workload
from presence_proto import ConnId, Hub, HubConfig

USERS, CROWD = 200, 20_000
"""In the rosters of the clients."""
MEMBERS = 20
"""In the topic of the hub."""
BURSTS = 40
"""Diffs of many changes, which are large."""
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


def single_presence(count: int) -> Callable[[], object]:
    """PresenceClient on asyncio: a read of one diff to the application."""
    return _client(OneAtATime(presence=True), count)


def single_realtime(count: int) -> Callable[[], object]:
    """RealtimeClient on asyncio: the same."""
    return _client(OneAtATime(presence=False), count)


def devices(count: int) -> Callable[[], object]:
    """RealtimeClient: the text of a diff of one of 50 devices to events."""
    return _taken(Realtime(text=True), workloads.devices(1, diffs=MOST), count)


def burst(count: int) -> Callable[[], object]:
    """RealtimeClient: the text of 100 joins and 100 leaves to events."""
    return _taken(Realtime(text=True), workloads.burst(1, USERS, BURSTS), count)


def burst_presence(count: int) -> Callable[[], object]:
    """PresenceClient: the bytes of the same to events."""
    return _taken(Presence(), workloads.burst(1, USERS, BURSTS), count)


def update_activity(count: int) -> Callable[[], object]:
    """PresenceClient: an activity to the bytes of a broadcast and a track."""
    return partial(Ours().update_activity, count)


def send_chat(count: int) -> Callable[[], object]:
    """PresenceClient: a chat message to bytes."""
    return partial(Ours().chat, count)


def heartbeat(count: int) -> Callable[[], object]:
    """PresenceClient: a tick, the bytes of a heartbeat, and its reply."""
    return partial(Ours().heartbeat, count)


def _client(contestant: MemoryContestant, count: int, users: int = USERS) -> Callable[[], object]:
    return _taken(contestant, workloads.steady(1, users, MOST), count)


def _taken(contestant: MemoryContestant, room: Workload, count: int) -> Callable[[], object]:
    texts = room.texts("2.0.0")
    contestant.load(texts[: room.untimed], [TOPIC])
    contestant.prepare(texts[room.untimed : room.untimed + count])
    return contestant.run


def _hub(members: int, config: HubConfig | None = None) -> Hub:
    hub = Hub(config)
    for number in range(members):
        hub.transport_opened(ConnId(number), now=0)
        for data in (upgrade(), join_as(user_id(number))):
            hub.receive_data(ConnId(number), data, now=0)
            hub.drain()
    return hub


def hub_heartbeat(count: int) -> Callable[[], object]:
    """Hub: a heartbeat and its reply."""
    hub = _hub(1)
    beat = frame(None, "7", "phoenix", "heartbeat", {})

    def run() -> None:
        for _ in range(count):
            hub.receive_data(ConnId(0), beat, now=1)
            hub.drain()

    return run


def hub_broadcast(count: int) -> Callable[[], object]:
    """Hub: a broadcast of one member to 20."""
    hub = _hub(MEMBERS)
    payload = {"type": "broadcast", "event": "chat_message", "payload": {"content": "Is anybody there?"}}
    say = frame("1", None, TOPIC, "broadcast", payload)

    def run() -> None:
        for _ in range(count):
            hub.receive_data(ConnId(0), say, now=1)
            hub.drain()

    return run


def hub_diff(count: int) -> Callable[[], object]:
    """Hub: a track of one member, its reply, and the diff of it to 20."""
    hub = _hub(MEMBERS, HubConfig(presence_window=0))
    tracks = [track(0), track(1)]  # the same again would be no news
    hub.receive_data(ConnId(0), tracks[1], now=1)
    hub.drain()

    def run() -> None:
        for number in range(count):
            hub.receive_data(ConnId(0), tracks[number % 2], now=1)
            assert len(hub.drain()) == MEMBERS

    return run


HOT_PATHS: dict[str, tuple[Callable[[int], Callable[[], object]], int]] = {
    "single-presence": (single_presence, 300),
    "single-realtime": (single_realtime, 300),
    "client-text": (client_text, 500),
    "client-crowd": (client_crowd, 500),
    "client-bytes": (client_bytes, 500),
    "presence-bytes": (presence_bytes, 500),
    "devices": (devices, 300),
    "burst": (burst, 20),
    "burst-presence": (burst_presence, 20),
    "update-activity": (update_activity, 100),
    "send-chat": (send_chat, 100),
    "heartbeat": (heartbeat, 100),
    "hub-heartbeat": (hub_heartbeat, 500),
    "hub-broadcast": (hub_broadcast, 100),
    "hub-diff": (hub_diff, 100),
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
