"""The states of a channel, from the table in `presence_proto.channel`."""

from __future__ import annotations

from diagrams.svg import Picture
from presence_proto.channel import TRANSITIONS, ChannelInput, ChannelState

WIDTH, HEIGHT = 148, 56

PLACES = {
    ChannelState.WAITING: (120, 96),
    ChannelState.JOINING: (400, 96),
    ChannelState.JOINED: (680, 96),
    ChannelState.LEAVING: (540, 280),
    ChannelState.CLOSED: (120, 280),
}
"""The middle of each box."""

SAYINGS = {
    ChannelState.WAITING: "wanted, not joining",
    ChannelState.JOINING: "phx_join was sent",
    ChannelState.JOINED: "the server said ok",
    ChannelState.LEAVING: "phx_leave was sent",
    ChannelState.CLOSED: "left, and forgotten",
}

COLORS = {
    ChannelState.WAITING: "amber",
    ChannelState.JOINING: "blue",
    ChannelState.JOINED: "green",
    ChannelState.LEAVING: "blue",
    ChannelState.CLOSED: "grey",
}

S, I = ChannelState, ChannelInput  # noqa: E741 - the table reads better

# From one state to another: the path, and where its label stands.
CURVES: dict[tuple[ChannelState, ChannelState], tuple[str, tuple[float, float], str]] = {
    (S.WAITING, S.JOINING): ("M196 88 L322 88", (259, 80), "middle"),
    (S.JOINING, S.WAITING): ("M324 108 L198 108", (259, 126), "middle"),
    (S.JOINING, S.JOINING): ("M442 124 C462 168, 516 156, 474 112", (486, 160), "start"),
    (S.JOINING, S.JOINED): ("M476 88 L602 88", (539, 80), "middle"),
    (S.JOINED, S.JOINING): ("M604 108 L478 108", (541, 126), "middle"),
    (S.JOINED, S.WAITING): ("M680 66 C680 10, 120 10, 120 64", (400, 36), "middle"),
    (S.JOINING, S.LEAVING): ("M410 126 C420 190, 470 210, 505 248", (418, 204), "end"),
    (S.JOINED, S.LEAVING): ("M670 126 C660 190, 610 210, 575 248", (662, 204), "start"),
    (S.LEAVING, S.CLOSED): ("M464 280 L198 280", (331, 272), "middle"),
    (S.WAITING, S.CLOSED): ("M120 126 L120 248", (130, 194), "start"),
}


def channel_states() -> Picture:
    """All states, and all legal moves."""
    picture = Picture(800, 340, "The states of a channel, and the moves between them")
    for (state, cause), following in TRANSITIONS.items():
        path, (x, y), anchor = CURVES[state, following]
        lost = cause is ChannelInput.DOWN
        picture.path(path, "red-line" if lost else "line", arrow=True)
        picture.text(x, y, cause.name, "red-line" if lost else "quiet", size=11, anchor=anchor, mono=True)
    for state, (x, y) in PLACES.items():
        color = COLORS[state]
        stroke = "edge" if color == "grey" else f"{color}-line"
        picture.box(x - WIDTH / 2, y - HEIGHT / 2, WIDTH, HEIGHT, color, stroke)
        picture.text(x, y - 2, state.name, size=14, anchor="middle", mono=True, bold=True)
        picture.text(x, y + 16, SAYINGS[state], "quiet", size=10, anchor="middle")
    picture.text(
        400,
        328,
        "DOWN: refused, crashed, closed, or the connection was lost",
        "red-line",
        size=11,
        anchor="middle",
    )
    return picture
