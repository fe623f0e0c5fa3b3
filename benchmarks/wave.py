"""The benchmark of a join wave: many clients come into one topic and become present, all at once."""

from __future__ import annotations

from contextlib import ExitStack

from attrs import frozen

from benchmarks import processes
from benchmarks.contest import WRONG_ROSTER, Result
from benchmarks.plain_client import Frames, Roster, all_see_all, join_as, track, upgrade, user_id
from benchmarks.plan import Plan
from benchmarks.processes import Child
from benchmarks.table import Row, Table, rows_of
from presence_proto import ConnId, Hub, HubConfig, SendData

DEFAULT = HubConfig().presence_window
WINDOWS = {f"presence_window {window:g} s": window for window in (DEFAULT, 0.0)}
"""The hub's default, and none: there each change is a frame to everybody."""
ROUNDS = 3

ABOUT = """\
All connect, and then each joins and tracks, over sockets all at once. Counted are the `presence_diff` frames
of the client that got most. In the end everybody must see everybody."""
STATES = "Bytes of replies, of the state and of all diffs, on average. Who comes late gets a larger state."
OVER_SOCKETS = "CPU time of HubServer's process, from the first join to the last diff."


@frozen
class Wave:
    """What came of it: the most diff frames that a client got, and bytes for each client."""

    diffs: int
    bytes: float
    is_right: bool


class Room:
    """A hub in memory, with clients that say what they are told to, and hear everything."""

    def __init__(self, config: HubConfig, clients: int) -> None:
        self._hub = Hub(config)
        self._frames = [Frames() for _ in range(clients)]
        self._rosters = [Roster() for _ in range(clients)]
        self._bytes = 0
        self._is_open = False
        for number in range(clients):
            self._hub.transport_opened(ConnId(number), now=0.0)
            self._say(number, upgrade(), 0.0)
        self._is_open = True

    def wave(self, seconds: float) -> Wave:
        """All come within so many seconds, one after another."""
        clients = len(self._rosters)
        for number in range(clients):
            now = 1.0 + seconds * number / clients
            self._tick(now)
            self._say(number, join_as(user_id(number)) + track(number), now)
        self._tick(2.0 + seconds)
        most = max(roster.diffs for roster in self._rosters)
        return Wave(most, self._bytes / clients, all_see_all(self._rosters))

    def _tick(self, until: float) -> None:
        while (deadline := self._hub.next_deadline()) is not None and deadline <= until:
            self._hub.tick(now=deadline)
            self._drain()

    def _say(self, number: int, data: bytes, now: float) -> None:
        self._hub.receive_data(ConnId(number), data, now=now)
        self._drain()

    def _drain(self) -> None:
        for output in self._hub.drain():
            if isinstance(output, SendData) and self._is_open:
                self._bytes += len(output.data)
                roster = self._rosters[output.conn]
                for text in self._frames[output.conn].take(output.data):
                    roster.take(text)


def wave(plan: Plan) -> list[Table]:
    """All come into one topic."""
    clients = plan.scaled(1_000)
    frames: list[Row] = []
    sizes: list[Row] = []
    costs: list[Row] = []
    for name, window in WINDOWS.items():
        for seconds, when in ((0.0, "in one moment"), (1.0, "within a second")):
            plan.progress(f"wave: {clients:,} clients come {when}, {name}")
            came = Room(HubConfig(presence_window=window), clients).wave(seconds)
            _add(frames, sizes, f"{name}, {when}, in memory", came)
    for name, window in WINDOWS.items():
        result = Result(f"HubServer, {name}", ours=True)
        waves = [_over_sockets(plan, clients, window, result) for _ in range(min(plan.rounds, ROUNDS))]
        _add(frames, sizes, f"{name}, over sockets", max(waves, key=lambda came: came.diffs))
        costs += rows_of([result])
    title = f"A wave of {clients:,} joins into one topic"
    return [
        Table("wave-frames", f"{title}: the most diff frames that a client got", ABOUT, "frames", frames),
        Table("wave-bytes", f"{title}: what a client got", STATES, "KiB", sizes),
        Table("wave-cpu", f"{title}: the server's CPU time", OVER_SOCKETS, "ms per join", costs),
    ]


def _add(frames: list[Row], sizes: list[Row], name: str, came: Wave) -> None:
    fault = None if came.is_right else WRONG_ROSTER
    for rows, value in ((frames, came.diffs), (sizes, came.bytes / 1024)):
        rows.append(Row(name, value if came.is_right else None, 0.0, fault, True, not came.is_right))


def _over_sockets(plan: Plan, clients: int, window: float, result: Result) -> Wave:
    """One wave into a new server."""
    plan.progress(f"wave: {clients:,} clients come to {result.name}")
    with ExitStack() as stack:
        server = Child(processes.python("servers.hub", "window", str(window)))
        stack.callback(server.close)
        crowd = Child(processes.python("crowd"))
        stack.callback(crowd.close)
        crowd.ask(come=clients, port=server.hear()["port"], deflate=False, join=False)
        server.ask(texts=[], together=1)
        answer = crowd.ask(enter=True)
        result.rounds.append(server.ask(cpu=True)["cpu"] / clients * 1e3)
    if not answer["right"]:
        result.is_wrong(WRONG_ROSTER)
    return Wave(answer["diffs"], answer["bytes"] / clients, answer["right"])
