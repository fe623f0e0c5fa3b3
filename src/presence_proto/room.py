"""What `PresenceClient` wants of a protocol: one room, and what is heard of it. Two protocols tell of rooms:
`phoenix_room` (Supabase and Phoenix channels) and `jarvis` (the Jarvis JSON protocol).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import frozen

from presence_proto.events import PresenceDiffed

if TYPE_CHECKING:
    from presence_proto.endpoint import ConnId
    from presence_proto.events import ChatMessage, GameInvite, OnlineUser, Poked
    from presence_proto.payloads import PendingActivity
    from presence_proto.presence import PresenceChange


@frozen
class Synced:
    """We are in the room, and everybody in it is known; `changes` is what differs from what was known.

    `forgotten`: the server may have been restarted and have forgotten everybody. Those who left may return.
    """

    changes: tuple[PresenceChange, ...]
    forgotten: bool


@frozen
class ActivityReported:
    """Somebody says what they do; presence is to follow."""

    claim: PendingActivity


@frozen
class Said:
    """Somebody says something to us."""

    event: GameInvite | Poked | ChatMessage


@frozen
class Lost:
    """We are out of the room, or could not get in. `retry_in`: see `events.Disconnected`."""

    reason: str
    retry_in: float | None
    fatal: bool = False


@frozen
class Delivered:
    """The server has taken a message of ours. `sent_to`: the names of those who got it, if it says so."""

    message_id: int
    sent_to: tuple[str, ...] | None = None


@frozen
class Undelivered:
    """The server refused a message of ours, or it will never know of it."""

    message_id: int
    reason: str


@frozen
class Trouble:
    """Something is wrong that a person should know."""

    message: str


RoomEvent: TypeAlias = (
    Synced | PresenceDiffed | ActivityReported | Said | Lost | Delivered | Undelivered | Trouble
)


class Room(Protocol):
    """One room over one protocol: the facts of an `Endpoint`, and what one may do in a room.

    Bytes and orders go to the outbox that it is made with; the events of the room are told to the function
    that it is made with, at once.
    """

    @property
    def is_closed(self) -> bool:
        """Whether it is at rest: not connected, and not trying to be."""
        ...

    @property
    def server_count(self) -> int | None:
        """How many users the server last said there are, if it says so at all."""
        ...

    @property
    def latency(self) -> float | None:
        """How long the latest heartbeat took, in seconds."""
        ...

    def connect(self, own: OnlineUser, *, now: float) -> None:
        """Enter the room, shown as `own`, and stay in it until `disconnect`."""
        ...

    def disconnect(self, *, now: float) -> None:
        """Leave the room for good."""
        ...

    def show(self, own: OnlineUser, *, now: float) -> int | None:
        """Be shown as `own` from now on. Returns the id of the message that says so, if it is answered."""
        ...

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send a `game_invite`, `poke` or `chat_message`, and return the message's id.

        `Delivered` or `Undelivered` follows. Raises `LocalProtocolError` for what the protocol cannot carry.
        """
        ...

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token."""
        ...

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """There is no access token now."""
        ...

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """As in `Endpoint`."""
        ...

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """As in `Endpoint`."""
        ...

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """As in `Endpoint`."""
        ...

    def tick(self, *, now: float) -> None:
        """As in `Endpoint`."""
        ...

    def next_deadline(self) -> float | None:
        """As in `Endpoint`."""
        ...
