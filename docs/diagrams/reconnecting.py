"""A lost connection and the way back, as a real client goes it in virtual time."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from diagrams.presence import Payload, metas
from diagrams.svg import MONO_WIDTH, Picture
from presence_proto import (
    Connected,
    Disconnected,
    Identity,
    PresenceClient,
    PresenceConfig,
    UserOffline,
    UserOnline,
)
from presence_proto.testing import ScriptedServer

WIDTH, HEIGHT = 860, 408
LEFT, RIGHT = 120, 836
END = 30.0
LOST = 5.0
FAILURES = 3  # attempts that come to nothing

BEFORE = metas("alice", "A1") | metas("bob", "B1") | metas("carol", "C1")
AFTER = metas("alice", "A2") | metas("carol", "C1") | metas("dave", "D1")


@frozen
class Session:
    """What happened when, in seconds."""

    events: list[tuple[float, Any]]
    attempts: list[float]
    stable: float


def session() -> Session:
    """Connected at 0, lost at `LOST`; the network is back after some attempts. Bob left, and Dave came."""
    config = PresenceConfig(server_url="ws://host.test")
    server = ScriptedServer(PresenceClient(Identity("alice", "Alice"), config), now=0.0)
    happened: list[tuple[float, Any]] = []

    def enter(state: Payload) -> None:
        server.open()
        server.accept_join(state=state)
        happened.extend((server.now, event) for event in server.take())

    server.do(server.client.connect)
    enter(BEFORE)
    server.advance(LOST)
    attempts = []
    for _ in range(FAILURES + 1):
        server.cut("the network is gone")
        ((_, retry_in),) = [(event, event.retry_in) for event in server.take()]
        happened.append((server.now, Disconnected("the network is gone", retry_in)))
        server.advance(retry_in)
        attempts.append(server.now)
    enter(AFTER)
    return Session(happened, attempts, server.now + config.stable_after)


def reconnecting() -> Picture:
    """The connection, the roster, and the events, over time."""
    story = session()
    back = story.attempts[-1]
    picture = Picture(WIDTH, HEIGHT, "A lost connection and the way back")
    for y, name in ((72, "connection"), (132, "roster"), (190, "events")):
        picture.text(20, y, name, size=13, bold=True)
    _bar(picture, 54, 0, LOST, "green", "open")
    _bar(picture, 54, LOST, back, "red", "")
    _bar(picture, 54, back, END, "green", "open", story.stable)
    starts = [LOST, *story.attempts[:-1]]
    for start, attempt in zip(starts, story.attempts, strict=True):
        middle = (_x(start) + _x(attempt)) / 2
        picture.text(middle, 46, f"{attempt - start:g} s", "quiet", size=11, anchor="middle")
        picture.dot(_x(attempt), 72, "green-line" if attempt == back else "red-line", 6)
    _bar(picture, 114, 0, LOST, "green", "3 users")
    _bar(picture, 114, LOST, back, "amber", "the same 3 users, is_stale")
    _bar(picture, 114, back, END, "green", "3 users", story.stable)
    picture.path(f"M{_x(story.stable):g} 44 L{_x(story.stable):g} 160", "quiet", dashed=True, width=1)
    picture.text(_x(story.stable), 36, "stable: the backoff starts over", "quiet", size=11, anchor="middle")
    lines = [190 + 21 * number for number in range(len(story.events))]
    for (when, _), y in zip(story.events, lines, strict=True):
        picture.path(f"M{_x(when):g} 158 L{_x(when):g} {y - 12}", "edge", width=1)
    for (when, event), y in zip(story.events, lines, strict=True):
        x, text = _x(when), _told(event)
        picture.box(x + 7, y - 13, len(text) * 11.5 * MONO_WIDTH + 4, 18, "card")
        picture.dot(x, y - 4, _color(event), 4)
        picture.text(x + 9, y, text, size=11.5, mono=True)
    base = HEIGHT - 36
    picture.path(f"M{LEFT} {base} L{RIGHT} {base}", "line")
    for second in range(0, int(END) + 1, 5):
        picture.path(f"M{_x(second):g} {base} L{_x(second):g} {base + 5}", "line")
        picture.text(_x(second), base + 20, f"{second} s", "quiet", size=11, anchor="middle")
    return picture


def _x(second: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * second / END, 1)


def _bar(
    picture: Picture, y: float, start: float, end: float, color: str, text: str, free: float | None = None
) -> None:
    """From `start` to `end`; the text has room until `free`."""
    picture.box(_x(start), y, _x(end) - _x(start) - 2, 36, color, f"{color}-line", radius=4)
    picture.text((_x(start) + _x(free or end)) / 2, y + 23, text, size=12, anchor="middle")


def _color(event: Any) -> str:
    if isinstance(event, Disconnected):
        return "red-line"
    return "green-line" if isinstance(event, Connected) else "blue-line"


def _told(event: Any) -> str:
    match event:
        case Connected():
            return f"Connected({event.online_count}, …, resumed={event.resumed})"
        case Disconnected():
            return f"Disconnected(…, retry_in={event.retry_in})"
        case UserOnline() | UserOffline():
            return f"{type(event).__name__}({event.user.display_name})"
    raise AssertionError(event)
