"""The states of a channel: every move of the table is made, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from presence_proto import channel
from presence_proto.channel import TRANSITIONS, ChannelInput, ChannelState
from presence_proto.events import ChannelLeft
from rig import Rig, online, realtime

ROOM = "realtime:room"
S, I = ChannelState, ChannelInput  # noqa: E741 - the table reads better


def joining() -> Rig:
    rig = online()
    rig.do(rig.client.join, ROOM)
    return rig


def joined() -> Rig:
    rig = joining()
    rig.accept_join(ROOM)
    return rig


def leaving() -> Rig:
    rig = joined()
    rig.do(rig.client.leave, ROOM)
    return rig


def waiting() -> Rig:
    rig = realtime()
    rig.do(rig.client.join, ROOM)
    return rig


def left(rig: Rig) -> None:
    rig.do(rig.client.leave, ROOM)


MOVES: dict[tuple[ChannelState, ChannelInput], tuple[Callable[[], Rig], Callable[[Rig], Any]]] = {
    (S.WAITING, I.JOIN_SENT): (waiting, lambda rig: rig.connect()),
    (S.WAITING, I.LEFT): (waiting, left),
    (S.JOINING, I.JOIN_SENT): (joining, lambda rig: rig.advance(30.0)),
    (S.JOINING, I.JOIN_OK): (joining, lambda rig: rig.accept_join(ROOM)),
    (S.JOINING, I.DOWN): (joining, lambda rig: rig.cut()),
    (S.JOINING, I.LEAVE_SENT): (joining, left),
    (S.JOINED, I.JOIN_SENT): (joined, lambda rig: rig.advance(10.0)),
    (S.JOINED, I.DOWN): (joined, lambda rig: rig.say("1", "1", ROOM, "phx_close", {})),
    (S.JOINED, I.LEAVE_SENT): (joined, left),
    (S.LEAVING, I.LEFT): (leaving, lambda rig: rig.reply(rig.last("phx_leave"))),
}


def test_every_move_of_the_table_has_a_way_to_be_made() -> None:
    assert MOVES.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize(("state", "given"), TRANSITIONS)
def test_each_move_leads_where_the_table_says(
    state: ChannelState, given: ChannelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive, move = MOVES[state, given]
    rig = arrive()
    assert rig.client.state_of(ROOM) is state
    made = Recorder(TRANSITIONS)
    monkeypatch.setattr(channel, "TRANSITIONS", made)
    move(rig)
    assert made.asked == [(state, given)]
    assert rig.client.state_of(ROOM) is TRANSITIONS[state, given]


class Recorder(dict[Any, Any]):
    """A table that remembers which moves were looked up."""

    def __init__(self, table: Any) -> None:
        super().__init__(table)
        self.asked: list[Any] = []

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.append(key)
        return super().get(key, default)


def test_closed_is_the_end() -> None:
    assert not [state for state, _ in TRANSITIONS if state is ChannelState.CLOSED]
    rig = waiting()
    left(rig)
    assert rig.take() == [ChannelLeft(ROOM)]
    assert rig.client.state_of(ROOM) is ChannelState.CLOSED


def test_every_state_but_the_first_can_be_reached() -> None:
    assert set(TRANSITIONS.values()) == set(ChannelState)
