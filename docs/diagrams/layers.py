"""The modules of the core, from their imports and from the list in `tests/test_layers.py`."""

from __future__ import annotations

import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

from attrs import frozen

from diagrams.svg import MONO_WIDTH, Picture

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from test_layers import ADAPTERS, CORE_SOURCES, ORDER, inner_imports

VOCABULARY = ("version", "errors", "endpoint", "validators", "json_text", "config", "events")
"""The words that all speak: nearly every module imports them, and no arrow is drawn to them."""

WHOLE = ("hub", "recording", "testing", "websocket")
"""Packages that are one box."""

ON_TOP = ("hub", "presence_client")
"""What adapters drive."""

SAYINGS = {
    ADAPTERS: "sockets, clocks, loops",
    "testing": "fuzzers, simulations",
    "recording": "record, replay",
    "hub": "the server",
    "presence_client": "PresenceClient",
    "realtime_client": "RealtimeClient",
    "phoenix_room": "on a channel",
    "jarvis_room": "on Jarvis JSON",
    "roster": "users, events",
    "restart_grace": "who may return",
    "channel": "one topic",
    "presence": "state + diffs",
    "phoenix_socket": "refs, pushes",
    "connection": "comes back",
    "serializer": "V1, V2, binary",
    "websocket": "bytes, messages",
    "timers": "named deadlines",
    "payloads": "payloads",
    "room": "what a room is",
    "secrets": "what to hide",
    "join_refusals": "ask again or not",
    "authorization": "who may join",
    "origins": "which web pages",
}

BOX, POINT, HEIGHT, GAP, ROW = 128, 6, 44, 18, 80
WIDTH = 860
SWEEPS = 9


def box_of(module: str) -> str:
    """The box that a module is in."""
    package = module.partition(".")[0]
    return package if package in WHOLE else module


def imports() -> dict[str, set[str]]:
    """Box -> the boxes that it imports, those that it has through others left out."""
    direct: dict[str, set[str]] = {ADAPTERS: set(ON_TOP)}
    for module in [*ORDER, *(name for name in CORE_SOURCES if name.startswith("testing"))]:
        found = direct.setdefault(box_of(module), set())
        found |= {box_of(name) for name, for_types in inner_imports(module) if name and not for_types}
    direct = {
        box: {one for one in boxes if one not in VOCABULARY and one != box}
        for box, boxes in direct.items()
        if box not in VOCABULARY
    }

    @cache
    def reached(box: str) -> frozenset[str]:
        return frozenset(direct[box]).union(*(reached(one) for one in direct[box]))

    return {
        box: {one for one in boxes if not any(one in reached(other) for other in boxes)}
        for box, boxes in direct.items()
    }


@frozen
class Drawing:
    """Where everything is: the row and the middle of each node, and the chains of nodes that arrows follow.

    A node is a box, or a point of an arrow that passes a row: `box>box@row`.
    """

    rows: list[list[str]]
    x: dict[str, float]
    chains: dict[tuple[str, str], list[str]]


def drawing(below: dict[str, set[str]]) -> Drawing:
    """Each box stands under all that import it; arrows that are long go around the boxes between."""

    @cache
    def depth(box: str) -> int:
        return max((depth(one) + 1 for one, boxes in below.items() if box in boxes), default=0)

    rows: list[list[str]] = [[] for _ in range(max(map(depth, below)) + 1)]
    for box in sorted(below):
        rows[depth(box)].append(box)
    chains = {}
    for box in sorted(below):
        for other in sorted(below[box]):
            points = {level: f"{box}>{other}@{level}" for level in range(depth(box) + 1, depth(other))}
            chains[box, other] = [box, *points.values(), other]
            for level, point in points.items():
                rows[level].append(point)
    pairs = sorted({pair for chain in chains.values() for pair in pairwise(chain)})
    x = {node: (i + 0.5) * WIDTH / len(row) for row in rows for i, node in enumerate(row)}
    for sweep in range(SWEEPS):  # down and up, and each row where its neighbours in the rows around want it
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {}
            for node in row:
                near = [x[a] for a, b in pairs if b == node] + [x[b] for a, b in pairs if a == node]
                wanted[node] = sum(near) / len(near)
            row.sort(key=lambda node: (wanted[node], node))
            x |= _spread({node: wanted[node] for node in row})
    return Drawing(rows, x, chains)


def _spread(wanted: dict[str, float]) -> dict[str, float]:
    """As near to what is wanted as it goes without overlaps, inside of the picture."""
    xs, sizes = list(wanted.values()), [POINT if "@" in node else BOX for node in wanted]
    for _ in range(200):
        for i in range(len(xs) - 1):
            overlap = (sizes[i] + sizes[i + 1]) / 2 + GAP - (xs[i + 1] - xs[i])
            if overlap > 0:
                xs[i] -= overlap / 2
                xs[i + 1] += overlap / 2
        xs[0] = max(xs[0], GAP + sizes[0] / 2)
        xs[-1] = min(xs[-1], WIDTH - GAP - sizes[-1] / 2)
    return dict(zip(wanted, xs, strict=True))


def layers() -> Picture:
    """What stands on what."""
    below = imports()
    plan = drawing(below)
    y = {node: 48 + number * ROW for number, row in enumerate(plan.rows) for node in row}
    bottom = max(y.values()) + HEIGHT / 2
    picture = Picture(WIDTH, bottom + 112, "The modules of the core, each above those that it imports")
    for chain in plan.chains.values():
        picture.path(_curve([(plan.x[node], y[node]) for node in chain]), arrow=True, width=1.2)
    for box in sorted(below):
        color = {ADAPTERS: "amber", "testing": "grey", "recording": "grey", "hub": "green"}.get(box, "blue")
        _box(picture, box, plan.x[box], y[box], color)
    top = bottom + 30
    picture.box(GAP, top, WIDTH - 2 * GAP, 64, "grey", "edge")
    picture.text(GAP + 14, top + 25, "Under all of it", "quiet", size=12)
    step = (WIDTH - 2 * GAP - 28) / len(VOCABULARY)
    for index, name in enumerate(VOCABULARY):
        picture.text(GAP + 14 + index * step, top + 48, name, size=13, mono=True)
    return picture


def _curve(points: list[tuple[float, float]]) -> str:
    """From the lower edge of the first box, past the points, to the upper edge of the last."""
    half = HEIGHT / 2
    (x, y), *middle, (end_x, end_y) = points
    path, y = f"M{x:.0f} {y + half:.0f}", y + half
    for next_x, next_y in [*middle, (end_x, end_y)]:
        is_end = (next_x, next_y) == (end_x, end_y)
        upper = next_y - half - (2 if is_end else 0)
        bend = (upper - y) / 2
        path += f" C{x:.0f} {y + bend:.0f}, {next_x:.0f} {upper - bend:.0f}, {next_x:.0f} {upper:.0f}"
        x, y = next_x, upper
        if not is_end:
            y = next_y + half
            path += f" L{x:.0f} {y:.0f}"
    return path


def _box(picture: Picture, box: str, x: float, y: float, color: str) -> None:
    picture.box(
        x - BOX / 2, y - HEIGHT / 2, BOX, HEIGHT, color, "edge" if color == "grey" else f"{color}-line"
    )
    name = box.removeprefix("presence_")
    size = min(13.0, (BOX - 10) / (len(name) * MONO_WIDTH))
    picture.text(x, y - 2, name, size=size, anchor="middle", mono=True, bold=True)
    picture.text(x, y + 14, SAYINGS[box], "quiet", size=10.5, anchor="middle")
