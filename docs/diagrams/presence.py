"""How states and diffs become a roster. The clients are real: what is drawn is what they hold and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from diagrams.svg import MONO_WIDTH, Picture
from presence_proto import (
    Connected,
    Identity,
    PresenceClient,
    PresenceConfig,
    PresenceMap,
    RealtimeClient,
    RealtimeConfig,
)
from presence_proto.testing import ScriptedServer

if TYPE_CHECKING:
    from presence_proto.presence import Meta

WIDTH, TOP, STEP, LINE = 860, 74, 26, 20
SAID, HELD, HEARD = 28, 330, 590
ROOM = "room:lobby"
COLORS = {"alice": "blue", "bob": "green", "carol": "amber", "dave": "red"}

Payload = dict[str, Any]


@frozen
class Step:
    """The server says something; then this is held, and that was reported."""

    said: list[str]
    held: dict[str, list[str]]  # key -> phx_refs
    heard: list[str]
    touched: frozenset[str] = frozenset()  # refs that the message names


def metas(user_id: str, *refs: str, activity: str | None = None) -> Payload:
    """One entry of a state or of one side of a diff."""
    shown = {"user_id": user_id, "display_name": user_id.title(), "activity": activity}
    return {user_id: {"metas": [{"phx_ref": ref, **shown} for ref in refs]}}


def merging() -> Picture:
    """A state, and diffs: a join, an update, a device that goes, the last one that goes."""
    client = PresenceClient(Identity("alice", "Alice"), PresenceConfig(server_url="ws://host.test"))
    server = ScriptedServer(client)
    server.connect()
    presence = PresenceMap()
    state = metas("alice", "A1") | metas("bob", "B1", "B2")
    server.accept_join(state=state)
    presence.apply_state(state)
    steps = [_step(["presence_state", *_listed(state)], presence, server.take(), state)]
    for joins, leaves in (
        (metas("carol", "C1"), {}),
        (metas("bob", "B3", activity="Playing Snake"), metas("bob", "B2")),
        ({}, metas("bob", "B1")),
        ({}, metas("bob", "B3")),
    ):
        server.diff(joins, leaves)
        presence.apply_diff({"joins": joins, "leaves": leaves})
        said = ["presence_diff", *(f"  joins {one}" for one in _listed(joins))]
        said += [f"  leaves{one}" for one in _listed(leaves)]
        steps.append(_step(said, presence, server.take(), joins, leaves))
    return _story("A state and four diffs", "The server says", "The map holds", "You hear", steps)


def waiting() -> Picture:
    """A diff before the join's reply, and one before the state."""
    server = ScriptedServer(RealtimeClient(RealtimeConfig(server_url="ws://host.test")))
    server.connect()
    server.do(server.client.join, ROOM)
    server.take()
    presence = server.client.presence(ROOM)
    steps = []
    dave, carol, state = metas("dave", "D1"), metas("carol", "C1"), metas("alice", "A1") | metas("bob", "B1")
    server.diff(joins=dave)
    steps.append(_step(["presence_diff", "  joins   dave   D1"], presence, server.take(), dave))
    join = server.accept_join()
    steps.append(_step(["phx_reply", "  ok"], presence, server.take()))
    server.diff(joins=carol)
    steps.append(_step(["presence_diff", "  joins   carol  C1"], presence, server.take(), carol))
    server.say(join.join_ref, None, ROOM, "presence_state", state)
    steps.append(_step(["presence_state", *_listed(state)], presence, server.take(), state, carol))
    notes = {0: "passed over: it is of the past", 2: "waits for the state"}
    steps = [
        Step(step.said, step.held, step.heard or [f"({notes[number]})"], step.touched)
        for number, step in enumerate(steps)
    ]
    return _story(
        "Diffs that come before the state", "The server says", "The map holds", "What happens", steps
    )


def _listed(entries: Payload) -> list[str]:
    return [f"  {key:<6} {' '.join(map(_ref, entry['metas']))}" for key, entry in entries.items()]


def _step(said: list[str], presence: PresenceMap, events: list[Any], *entries: Payload) -> Step:
    touched = {meta["phx_ref"] for one in entries for entry in one.values() for meta in entry["metas"]}
    held = {key: [_ref(meta) for meta in presence[key]] for key in sorted(presence)}
    return Step(said, held, [_told(event) for event in events], frozenset(touched))


def _ref(meta: Meta) -> str:
    return str(meta["phx_ref"])


def _told(event: Any) -> str:
    """An event in a few characters."""
    name = type(event).__name__
    if isinstance(event, Connected):
        return f"{name}({event.online_count} users)"
    if hasattr(event, "user"):
        return f"{name}({event.user.display_name})"
    if hasattr(event, "changes"):
        return f"{name}({', '.join(f'{change.key} {change.kind}' for change in event.changes)})"
    return name


def _story(title: str, said: str, held: str, heard: str, steps: list[Step]) -> Picture:
    heights = [STEP + LINE * max(len(s.said), 1.35 * len(s.held), len(_wrapped(s.heard))) for s in steps]
    picture = Picture(WIDTH, TOP + sum(heights) + 6, title)
    for x, heading in ((SAID, said), (HELD, held), (HEARD, heard)):
        picture.text(x, 40, heading, size=14, bold=True)
    y: float = TOP
    for number, (step, height) in enumerate(zip(steps, heights, strict=True)):
        picture.path(f"M16 {y - 18:g} L{WIDTH - 16} {y - 18:g}", "edge", width=1)
        for line, text in enumerate(step.said):
            picture.text(SAID, y + 6 + line * LINE, text, mono=True, bold=line == 0)
        if not step.held:
            picture.text(HELD, y + 6, "nothing", "quiet")
        for line, (key, refs) in enumerate(step.held.items()):
            picture.text(HELD, y + 6 + 1.35 * line * LINE, key, mono=True)
            for index, ref in enumerate(refs):
                x, color = HELD + 62 + index * 46, COLORS[key]
                top = y - 9 + 1.35 * line * LINE
                new = ref in step.touched and number > 0
                picture.box(x, top, 38, 22, color, f"{color}-line" if new else "edge", radius=11)
                picture.text(x + 19, top + 15.5, ref, size=12, anchor="middle", mono=True, bold=new)
        for line, text in enumerate(_wrapped(step.heard)):
            picture.text(
                HEARD,
                y + 6 + line * LINE,
                text,
                "quiet" if text.startswith("(") else "text",
                size=12,
                mono=not text.startswith("("),
            )
        y += height
    return picture


def _wrapped(heard: list[str]) -> list[str]:
    """No line longer than the column; `Name(what)` is cut after the bracket."""
    lines = []
    for one in heard or ["(nothing: he is still there)"]:
        if one.startswith("(") or len(one) * 12 * MONO_WIDTH < WIDTH - HEARD - 10:
            lines.append(one)
        else:
            name, _, what = one.partition("(")
            lines += [f"{name}(", *(f"  {part}" for part in what.split(", "))]
    return lines
