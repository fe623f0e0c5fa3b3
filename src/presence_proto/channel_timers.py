"""The names of the timers that the channels of a client share."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TypeAlias

from presence_proto.timers import Timers


class ChannelTimer(IntEnum):  # whose hash is quicker than that of other enums
    """What a timer is for. A timer is named by its slot and a topic, or by PUSH and the id of a push."""

    JOIN = auto()  # the answer to the join is late, or has been for long
    LEAVE = auto()  # the reply to the leave is due
    STATE = auto()  # the presence_state is due
    REJOIN = auto()  # join again
    STABLE = auto()  # joined for a while: backoffs start over
    TRACK = auto()  # the budget allows the next track
    PUSH = auto()  # the push expires, or its reply is due


ChannelTimers: TypeAlias = Timers[tuple[ChannelTimer, str | int]]
