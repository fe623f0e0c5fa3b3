"""The benchmarks of clients: which contestants get which workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from benchmarks import workloads
from benchmarks.contest import Entry, Result, contest, contest_of, node, python
from benchmarks.plan import Plan
from benchmarks.table import Table, ranked, rows_of
from benchmarks.workloads import Workload

OURS_TEXT = python("RealtimeClient", "ours", "realtime-text", ours=True)
OURS_BYTES = python("RealtimeClient", "ours", "realtime-bytes", ours=True)
PRESENCE_BYTES = python("PresenceClient", "ours", "presence-bytes", keys_only=True, ours=True)
PHOENIX = node("phoenix.js", "phoenix.mjs")
SUPABASE = node("realtime-js", "realtime.mjs")
OFFICIAL_TEXT = python("realtime (PyPI)", "pypi_realtime", "text", vsn="1.0.0")
OFFICIAL_BYTES = python("realtime (PyPI)", "pypi_realtime", "bytes", vsn="1.0.0")
JSON = python("floor: json.loads, nothing else", "floor", "json", bare=True)
MSGSPEC = python("floor: msgspec.json.decode, nothing else", "floor", "msgspec", bare=True)
LEAST_TEXT = python("floor: the least code", "floor", "prototype-text")
UNDECODED = python("floor: the least memory", "floor", "undecoded")
SINGLE_PRESENCE = python("PresenceClient, asyncio", "on_loop", "presence", keys_only=True, ours=True)
SINGLE_REALTIME = python("RealtimeClient, asyncio", "on_loop", "realtime", ours=True)
OFFICIAL_SINGLE = python("realtime (PyPI)", "pypi_realtime", "single", vsn="1.0.0")
LEAST_BYTES = python("floor: the least code", "floor", "prototype-bytes")

FROM_TEXT = "From the text of a message to what an application is told."
FROM_BYTES = "From socket bytes, 64 KiB at a time, to what an application is told, without a socket."
FROM_SINGLE = "From a read of one frame to the application's `async for`, without its system call."
NODE_BIAS = "Node's times include its compiler and collector threads."
LEAST = "The least code: one topic, no errors, no options; what a library adds to it is its price."


def _times(results: Iterable[Result], workload: Workload, *, name: str, title: str, **more: Any) -> Table:
    unit = f"µs per {workload.unit}"
    return Table(name, f"{title}: {workload.about}", unit=unit, rows=ranked(rows_of(results)), **more)


def _from_text(plan: Plan, workload: Workload, *more: Entry) -> list[Table]:
    """All clients on one workload."""
    entries = [OURS_TEXT, PHOENIX, SUPABASE, OFFICIAL_TEXT, MSGSPEC, *more]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    about = f"{FROM_TEXT} {LEAST}" if LEAST_TEXT in more else FROM_TEXT
    name = workload.name
    return [_times(results, workload, name=name, title="From text", about=about, bias=NODE_BIAS)]


def steady(plan: Plan) -> list[Table]:
    """One change a diff in a large room."""
    workload = workloads.steady(plan.seed, plan.scaled(10_000), plan.scaled(20_000))
    return _from_text(plan, workload, JSON, LEAST_TEXT)


def burst(plan: Plan) -> list[Table]:
    """Large diffs."""
    return _from_text(plan, workloads.burst(plan.seed, plan.scaled(10_000), plan.scaled(300)), LEAST_TEXT)


def resync(plan: Plan) -> list[Table]:
    """Full states, as after every reconnect."""
    return _from_text(plan, workloads.resync(plan.seed, plan.scaled(10_000)))


def devices(plan: Plan) -> list[Table]:
    """One user, many devices."""
    return _from_text(plan, workloads.devices(plan.seed, diffs=plan.scaled(10_000)), LEAST_TEXT)


def small_rooms(plan: Plan) -> list[Table]:
    """Many channels of few."""
    workload = workloads.small_rooms(plan.seed, rooms=plan.scaled(1_000), diffs=plan.scaled(20_000))
    return _from_text(plan, workload)


def v1(plan: Plan) -> list[Table]:
    """The older envelope, V1."""
    workload = workloads.steady(plan.seed, plan.scaled(10_000), plan.scaled(20_000))
    entries = [
        evolve(OURS_TEXT, command=(*OURS_TEXT.command, "v1"), vsn="1.0.0"),
        evolve(PHOENIX, command=(*PHOENIX.command, "v1"), vsn="1.0.0"),
        evolve(SUPABASE, command=(*SUPABASE.command, "v1"), vsn="1.0.0"),
        OFFICIAL_TEXT,
        evolve(MSGSPEC, vsn="1.0.0"),
    ]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    bias = f"phoenix.js speaks V2 and takes V1 by a serializer that it was given. {NODE_BIAS}"
    return [_times(results, workload, name="v1", title="From V1 text", about=FROM_TEXT, bias=bias)]


def in_memory(plan: Plan) -> list[Table]:
    """The whole client, from socket bytes."""
    workload = workloads.steady(plan.seed, plan.scaled(10_000), plan.scaled(20_000))
    entries = [PRESENCE_BYTES, OURS_BYTES, OFFICIAL_BYTES, LEAST_BYTES]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    about = f"{FROM_BYTES} {LEAST}"
    return [_times(results, workload, name="bytes", title="From bytes", about=about)]


def single(plan: Plan) -> list[Table]:
    """One frame a read, as most come."""
    workload = workloads.steady(plan.seed, plan.scaled(10_000), plan.scaled(20_000))
    phoenix = evolve(PHOENIX, name="phoenix.js, from text")
    entries = [SINGLE_PRESENCE, SINGLE_REALTIME, OFFICIAL_SINGLE, phoenix]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    about = f"{FROM_SINGLE} phoenix.js is given the text, without a WebSocket."
    return [_times(results, workload, name="single", title="One frame a read", about=about, bias=NODE_BIAS)]


def deflate(plan: Plan) -> list[Table]:
    """The whole client, from compressed bytes."""
    workload = workloads.steady(plan.seed, plan.scaled(10_000), plan.scaled(20_000))
    entries = [
        evolve(PRESENCE_BYTES, command=(*PRESENCE_BYTES.command, "deflate")),
        evolve(OURS_BYTES, command=(*OURS_BYTES.command, "deflate")),
        python("realtime (PyPI)", "pypi_realtime", "deflate", vsn="1.0.0"),
        python("floor: zlib, then msgspec.json.decode", "floor", "inflate", bare=True),
    ]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    title = "From bytes with permessage-deflate"
    return [_times(results, workload, name="deflate", title=title, about=FROM_BYTES)]


def over_socket(plan: Plan) -> list[Table]:
    """The whole client as shipped, over a loopback socket."""
    # The official Python client takes no message of more than 1 MiB, such as a state of 10,000 users.
    users, diffs = plan.scaled(10_000), plan.scaled(20_000)
    workload = workloads.steady(plan.seed, users, diffs, max_state=2_500)
    more = {"keys_only": True, "socket": True}
    entries = [
        python("PresenceClient, asyncio", "over_socket", "ours", ours=True, **more),
        node("phoenix.js, ws", "socket.mjs", **more),
        python("realtime (PyPI)", "over_socket", "realtime", vsn="1.0.0", **more),
    ]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    about = "From a server in another process to what an application is told."
    return [_times(results, workload, name="socket", title="Over a socket", about=about, bias=NODE_BIAS)]


SIZES = (10, 1_000, 10_000, 100_000)


def sizes(plan: Plan) -> list[Table]:
    """The cost of a diff as the room grows."""
    diffs, counts = plan.scaled(20_000), [max(SIZES[0], plan.scaled(users)) for users in SIZES]
    rooms = [workloads.steady(plan.seed, users, diffs) for users in counts]
    from_bytes = evolve(OURS_BYTES, name="RealtimeClient from bytes")
    clients = (OURS_TEXT, from_bytes, LEAST_TEXT, UNDECODED, PHOENIX)
    pairs = [
        (evolve(entry, name=f"{entry.name}, {users:,} users"), room)
        for entry in clients
        for users, room in zip(counts, rooms, strict=True)
    ]
    results = contest_of(pairs, name="sizes", rounds=plan.rounds, progress=plan.progress)
    title = "The room grows: one change a diff, from text"
    about = f"{FROM_TEXT} The least memory: as the least code, but what is held of a user is one object."
    return [Table("sizes", title, about, "µs per diff", rows_of(results), NODE_BIAS)]


CLIENT_SUITES: dict[str, Callable[[Plan], list[Table]]] = {
    "single": single,
    "steady": steady,
    "burst": burst,
    "resync": resync,
    "devices": devices,
    "small-rooms": small_rooms,
    "sizes": sizes,
    "v1": v1,
    "bytes": in_memory,
    "deflate": deflate,
    "socket": over_socket,
}
