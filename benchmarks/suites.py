"""The benchmarks by name: which contestants get which workload."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from benchmarks import workloads
from benchmarks.contest import Entry, contest, node, python
from benchmarks.table import Table, rows_of

Progress = Callable[[str], None]


@frozen
class Plan:
    """`rounds` of everything, besides one to warm up. `quick`: less of it, for a first look."""

    seed: int
    rounds: int
    quick: bool
    progress: Progress

    def scaled(self, count: int) -> int:
        """As many as `count`, or a tenth in a quick run."""
        return count // 10 if self.quick else count


OURS_TEXT = python("RealtimeClient", "ours", "realtime-text", ours=True)
OURS_BYTES = python("RealtimeClient", "ours", "realtime-bytes", ours=True)
OURS_V1 = python("RealtimeClient, V1", "ours", "realtime-text", "1.0.0", vsn="1.0.0", ours=True)
PRESENCE = python("PresenceClient", "ours", "presence-bytes", keys_only=True, ours=True)
PHOENIX = node("phoenix.js", "phoenix.mjs")
SUPABASE = node("realtime-js", "realtime.mjs")
OFFICIAL_TEXT = python("realtime (PyPI)", "pypi_realtime", "text", vsn="1.0.0")
OFFICIAL_BYTES = python("realtime (PyPI)", "pypi_realtime", "bytes", vsn="1.0.0")
JSON = python("floor: json.loads, nothing else", "floor", "json", bare=True)
MSGSPEC = python("floor: msgspec.json.decode, nothing else", "floor", "msgspec", bare=True)
LEAST_TEXT = python("floor: the least code", "floor", "prototype-text")
LEAST_BYTES = python("floor: the least code", "floor", "prototype-bytes")

FROM_TEXT = "From the text of a message to what an application is told."
FROM_BYTES = "From socket bytes, 64 KiB at a time, to what an application is told, without a socket."
NODE_BIAS = "Node's times include its compiler and collector threads."


def text(plan: Plan, workload: workloads.Workload, *more: Entry) -> Table:
    """All clients on one workload, from text."""
    entries = [OURS_TEXT, PHOENIX, SUPABASE, OFFICIAL_TEXT, MSGSPEC, *more]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    unit = f"µs per {workload.unit}"
    title = f"from text, {workload.about}"
    return Table(workload.name, title, FROM_TEXT, unit, rows_of(results), NODE_BIAS)


def steady(plan: Plan) -> Table:
    """One change a diff in a large room."""
    return text(plan, workloads.steady(plan.seed, diffs=plan.scaled(20_000)), JSON, LEAST_TEXT)


def burst(plan: Plan) -> Table:
    """Large diffs."""
    return text(plan, workloads.burst(plan.seed, diffs=plan.scaled(300)), LEAST_TEXT)


def resync(plan: Plan) -> Table:
    """Full states, as after every reconnect."""
    return text(plan, workloads.resync(plan.seed, users=plan.scaled(10_000)))


def devices(plan: Plan) -> Table:
    """One user, many devices."""
    return text(plan, workloads.devices(plan.seed, diffs=plan.scaled(10_000)), LEAST_TEXT)


def small_rooms(plan: Plan) -> Table:
    """Many channels of few."""
    return text(plan, workloads.small_rooms(plan.seed, rooms=plan.scaled(1_000), diffs=plan.scaled(20_000)))


def in_memory(plan: Plan) -> Table:
    """The whole client, from socket bytes."""
    workload = workloads.steady(plan.seed, diffs=plan.scaled(20_000))
    entries = [PRESENCE, OURS_BYTES, OFFICIAL_BYTES, LEAST_BYTES]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    return Table("bytes", f"from bytes, {workload.about}", FROM_BYTES, "µs per diff", rows_of(results))


def over_socket(plan: Plan) -> Table:
    """The whole client as shipped, over a loopback socket."""
    # The official Python client takes no message of more than 1 MiB, such as a state of 10,000 users.
    workload = workloads.steady(plan.seed, diffs=plan.scaled(20_000), max_state=2_500)
    more = {"keys_only": True, "socket": True}
    entries = [
        python("PresenceClient, asyncio", "over_socket", "ours", ours=True, **more),
        node("phoenix.js, ws", "socket.mjs", **more),
        python("realtime (PyPI)", "over_socket", "realtime", vsn="1.0.0", **more),
    ]
    results = contest(workload, entries, rounds=plan.rounds, progress=plan.progress)
    about = "From a server in another process to what an application is told."
    rows = rows_of(results)
    return Table("socket", f"over a socket, {workload.about}", about, "µs per diff", rows, NODE_BIAS)


SUITES: dict[str, Callable[[Plan], Table]] = {
    "steady": steady,
    "burst": burst,
    "resync": resync,
    "devices": devices,
    "small-rooms": small_rooms,
    "bytes": in_memory,
    "socket": over_socket,
}
