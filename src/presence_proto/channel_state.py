"""The states of a channel, and every move between them.

A channel is *wanted* from `join` to `leave`, whatever happens to the connection. In between it lives several
lives on the server, one for each `phx_join`. While it is WAITING there is no connection, or a rejoin waits
for its delay. One that is CLOSED the client has forgotten.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ChannelState(Enum):
    """Where a channel is."""

    WAITING = auto()  #: Wanted, but no join is under way.
    JOINING = auto()  #: `phx_join` was sent.
    JOINED = auto()  #: The server said ok.
    LEAVING = auto()  #: `phx_leave` was sent.
    CLOSED = auto()  #: Left, or never joined.


class ChannelInput(Enum):
    """What moves a channel from one state to another."""

    JOIN_SENT = auto()
    JOIN_OK = auto()
    DOWN = auto()  # join refused, phx_error, phx_close, or the connection was lost
    LEAVE_SENT = auto()
    LEFT = auto()  # the leave was answered, or there is nobody to ask


TRANSITIONS: Mapping[tuple[ChannelState, ChannelInput], ChannelState] = {
    (ChannelState.WAITING, ChannelInput.JOIN_SENT): ChannelState.JOINING,
    (ChannelState.WAITING, ChannelInput.LEFT): ChannelState.CLOSED,
    (
        ChannelState.JOINING,
        ChannelInput.JOIN_SENT,
    ): ChannelState.JOINING,  # the server never answered the last
    (ChannelState.JOINING, ChannelInput.JOIN_OK): ChannelState.JOINED,
    (ChannelState.JOINING, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINING, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.JOINED, ChannelInput.JOIN_SENT): ChannelState.JOINING,  # to ask for a lost presence_state
    (ChannelState.JOINED, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINED, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.LEAVING, ChannelInput.LEFT): ChannelState.CLOSED,
}
"""Every legal move. A pair that is not here cannot happen."""
