"""The benchmark of commands: what a client says, from the call to the bytes or the text for its WebSocket."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.contest import Result
from benchmarks.plan import Plan
from benchmarks.processes import Child, Command
from benchmarks.table import Table, ranked, rows_of

COUNT = 2_000
SAYING = "contestants.saying"
CHAT = {
    "PresenceClient": processes.python(SAYING, "chat"),
    "phoenix.js": processes.node("saying.mjs"),
    "realtime (PyPI)": processes.python(SAYING, "pypi-chat"),
}
OTHERS = {
    "PresenceClient, update_activity": processes.python(SAYING, "update-activity"),
    "PresenceClient, a heartbeat and its reply": processes.python(SAYING, "heartbeat"),
}

ABOUT = "From a chat message to what the socket is given. Only ours is a masked frame; the peers' is text."
PEERLESS = "An activity is a broadcast and a track, in one write. A heartbeat: a tick, its frame, its reply."


def commands(plan: Plan) -> list[Table]:
    """What a client says."""
    results = _measured(plan, CHAT | OTHERS)
    chat = ranked(rows_of(results[: len(CHAT)]))
    others = rows_of(results[len(CHAT) :])
    unit = "µs per command"
    return [
        Table("commands", "A chat message is said", ABOUT, unit, chat),
        Table("commands-others", "What else is said", PEERLESS, unit, others, compared=False),
    ]


def _measured(plan: Plan, contestants: dict[str, Command]) -> list[Result]:
    """The CPU microseconds of one command, round by round."""
    results = []
    with ExitStack() as stack:
        children: list[tuple[Child, Result]] = []
        for name, command in contestants.items():
            ours = name.startswith("PresenceClient")
            result = Result(name, ours=ours, fault=processes.missing(command))
            results.append(result)
            if result.fault is None:
                children.append((Child(command), result))
                stack.callback(children[-1][0].close)
        count = plan.scaled(COUNT)
        for number in range(plan.rounds + 1):
            plan.progress(f"commands: round {number} of {plan.rounds}" if number else "commands: warming up")
            for child, result in children:
                if result.fault is not None:
                    continue
                try:
                    cost = child.ask(count=count)["cpu"] / count * 1e6
                except RuntimeError as exc:
                    result.fault = str(exc)
                else:
                    result.rounds += [cost] if number else []
    return results
