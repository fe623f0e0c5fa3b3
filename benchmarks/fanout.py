"""The benchmark of servers: one message to many clients, who are in another process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from attrs import define, frozen

from benchmarks import processes
from benchmarks.contest import Result
from benchmarks.plan import Plan
from benchmarks.processes import Child, Command
from benchmarks.table import Row, Table, ranked, rows_of
from benchmarks.workloads import shout

CLIENTS = (200, 1_000)
LOST = "messages came in the wrong order, or twice"


@frozen
class Server:
    """A contestant. `together`: so many messages are said in one moment. `join`: clients must join.

    `by_member`: it is a client who says them, and not the server's own program.
    """

    name: str
    command: Command
    together: int = 1
    ours: bool = False
    join: bool = False
    deflate: bool = False
    by_member: bool = False


def _ours(name: str, *options: str, **more: Any) -> Server:
    return Server(name, processes.python("servers.hub", *options), ours=True, join=True, **more)


def _websockets(name: str, *options: str, **more: Any) -> Server:
    return Server(name, processes.python("servers.websockets_server", *options), **more)


FLOOR = processes.python("servers.floor")
WS = processes.node("server.mjs")
SERVERS = [
    _ours("HubServer"),
    _ours("HubServer, a member says it", by_member=True),
    _ours("HubServer, deflate", "deflate", deflate=True),
    Server("ws (node)", WS),
    _websockets("websockets.broadcast", "broadcast"),
    _websockets("websockets.broadcast, deflate", "broadcast", "deflate", deflate=True),
    _websockets("websockets, each send awaited", "one-by-one"),
    _websockets("websockets, each send awaited, deflate", "one-by-one", "deflate", deflate=True),
    Server("floor: asyncio transport.write", FLOOR),
]
BURSTS = [
    _ours("20 at once: HubServer", together=20),
    _ours("20 at once: HubServer, a member says them", together=20, by_member=True),
    _ours("32 at once: HubServer, a member says them", together=32, by_member=True),
    Server("20 at once: ws (node)", WS, together=20),
    _websockets("20 at once: websockets.broadcast", "broadcast", together=20),
    Server("20 at once: floor, one transport.write", FLOOR, together=20),
]

ABOUT = """\
One message of 300 bytes to all clients of a topic, one topic, all on loopback and read by another process.
Counted is what the clients got, for each second of CPU time of the server."""
BIAS = """\
Ours encodes each message anew, and the others are given its text; only ours knows topics and members.
"Each send awaited" is how the original Jarvis server does it. The clients count all messages, and check their
order."""


@define
class Arena:
    """A server and its crowd. `said`: how many messages the crowd has heard."""

    server: Server
    clients: int
    child: Child
    crowd: Child
    said: int = 0

    def open(self) -> None:
        """Let the crowd in."""
        port = self.child.hear()["port"]
        self.crowd.ask(come=self.clients, port=port, deflate=self.server.deflate, join=self.server.join)

    def round(self, count: int) -> tuple[float, int]:
        """Delivered messages for each second of CPU time, and how many were wrong."""
        texts = [shout(number) for number in range(self.said, self.said + count)]
        self.said += count
        together = self.server.together
        if self.server.by_member:
            self.child.ask(texts=[], together=together)
            heard = self.crowd.ask(say=texts, together=together)
        else:
            self.crowd.tell(hear=count)
            self.child.ask(texts=texts, together=together)
            heard = self.crowd.hear()
        return count * self.clients / self.child.ask(cpu=True)["cpu"], heard["wrong"]


def fan_out(plan: Plan) -> list[Table]:
    """A hub says something to all."""
    tables = []
    for clients in map(plan.scaled, CLIENTS):
        one, many = _contest(plan, clients)
        title = f"Fan-out: a message to {clients:,} clients"
        bursts = f"Fan-out: messages to {clients:,} clients, many in one moment"
        unit = "delivered per CPU second"
        tables.append(Table(f"fan-out-{clients}", title, ABOUT, unit, one, BIAS, higher=True))
        tables.append(Table(f"fan-out-{clients}-burst", bursts, ABOUT, unit, many, BIAS, higher=True))
    return tables


def _contest(plan: Plan, clients: int) -> tuple[list[Row], list[Row]]:
    """One message in a moment, and many, next to one of our first server."""
    results = []
    arenas: list[tuple[Arena, Result]] = []
    with ExitStack() as stack:
        for server in SERVERS + BURSTS:
            plan.progress(f"fan-out: {clients:,} clients come to {server.name}")
            result = Result(server.name, server.ours, fault=processes.missing(server.command))
            results.append(result)
            if result.fault is not None:
                continue
            child, crowd = Child(server.command), Child(processes.python("crowd"))
            stack.callback(child.close)
            stack.callback(crowd.close)
            arena = Arena(server, clients, child, crowd)
            try:
                arena.open()
            except RuntimeError as exc:
                result.fault = str(exc)
            else:
                arenas.append((arena, result))
        for number in range(plan.rounds + 1):
            plan.progress(f"fan-out: round {number} of {plan.rounds}" if number else "fan-out: warming up")
            for arena, result in arenas:
                if result.fault is None:
                    _take(plan, arena, result, counts=number > 0)
    one, many = results[: len(SERVERS)], results[len(SERVERS) :]
    return ranked(rows_of(one), higher=True), rows_of([*one[:1], *many])


def _moments(arena: Arena) -> int:
    """So many a round that it takes a tenth of a second, and fits into the buffers of the sockets."""
    return (20_000 if arena.server.together == 1 else 4_000) // arena.clients


def _take(plan: Plan, arena: Arena, result: Result, *, counts: bool) -> None:
    try:
        rate, wrong = arena.round(plan.scaled(_moments(arena)) * arena.server.together)
    except RuntimeError as exc:
        result.fault = str(exc)
        return
    if wrong:
        result.is_wrong(LOST)
    elif counts:
        result.rounds.append(rate)
