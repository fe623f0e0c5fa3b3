"""The benchmark of memory: what an idle client, a connection of the hub and a user in a roster take."""

from __future__ import annotations

from benchmarks import processes
from benchmarks.plan import Plan
from benchmarks.table import Row, Table

CLIENTS = {
    "PresenceClient": "presence-client",
    "PresenceClient, after 2,000 diffs": "presence-client-used",
    "RealtimeClient": "realtime-client",
    "RealtimeClient, after 2,000 diffs": "realtime-client-used",
}
CONNECTIONS = {
    "Hub": "hub",
    "Hub, deflate": "hub-deflate",
    "websockets": "websockets",
    "websockets, deflate": "websockets-deflate",
    "wsproto": "wsproto",
    "wsproto, deflate": "wsproto-deflate",
}
USERS = {
    "RealtimeClient": "realtime-user",
    "PresenceClient": "presence-user",
    "floor: the decoded JSON": "json-user",
}

METHOD = """\
Made many times over in a process of its own. Counted is what Python's allocators gave out (`tracemalloc`).
In brackets what the process has grown by (RSS), as a check: allocators round up, keep some of what was freed,
and memory that nobody has touched is not there."""
IDLE = f"A client object that is connected, joined and present, alone in its channel. {METHOD}"
JOINED = f"""\
A connection without its socket. Of the hub, with one joined channel; of `websockets` and `wsproto`, with
nothing on top. Each has got and said a message. {METHOD}"""
SEEN = f"A user on one device, with five fields and its `phx_ref`; both clients keep all fields. {METHOD}"


def memory(plan: Plan) -> list[Table]:
    """What idle clients, connections and users take."""
    few, many = plan.scaled(500), plan.scaled(10_000)
    return [
        Table("memory-client", "Memory of an idle client", IDLE, "KiB", _rows(plan, CLIENTS, few)),
        Table("memory-connection", "Memory of a connection", JOINED, "KiB", _rows(plan, CONNECTIONS, few)),
        Table("memory-user", "Memory of a user in a roster", SEEN, "KiB", _rows(plan, USERS, many)),
    ]


def _rows(plan: Plan, kinds: dict[str, str], count: int) -> list[Row]:
    rows = []
    for name, kind in kinds.items():
        plan.progress(f"memory: {count:,} x {kind}")
        ours = not name.startswith(("websockets", "wsproto", "floor"))
        try:
            traced = _weigh(kind, count, "tracemalloc")
        except RuntimeError as exc:
            rows.append(Row(name, None, fault=str(exc), ours=ours))
            continue
        try:
            note = f"({_weigh(kind, count, 'rss'):,.1f})"
        except RuntimeError:
            note = "(not known)"
        rows.append(Row(name, traced, ours=ours, note=note))
    return rows


def _weigh(kind: str, count: int, method: str) -> float:
    """KiB for one. Raises `RuntimeError` with the last words of the process when it fails."""
    child = processes.Child(processes.python("weigh", kind, str(count), method))
    try:
        size: float = child.hear()["bytes"]
    finally:
        child.close()
    return size / 1024
