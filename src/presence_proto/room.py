"""The interface between `PresenceClient` and a protocol: a `Room` and its events.

The implementations of `Room` are in `phoenix_room` (a Supabase channel) and `jarvis_room` (the Jarvis JSON
protocol).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct

from presence_proto.events import ChatMessage, Disconnected, Error, GameInvite, Poked, PresenceDiffed
from presence_proto.payloads import PendingActivity
from presence_proto.presence import PresenceChange

if TYPE_CHECKING:
    from presence_proto.endpoint import ConnId
    from presence_proto.events import OnlineUser


class Synced(Struct, frozen=True):
    """The client is in the room and knows all users. `changes` are the differences from the previous users.

    `forgotten` is true if the server may have lost its presence in a restart. Missing users may return.
    """

    changes: tuple[PresenceChange, ...]
    forgotten: bool


class ActivityReported(Struct, frozen=True):
    """A user has broadcast an activity. The presence update follows later."""

    claim: PendingActivity


class Delivered(Struct, frozen=True):
    """The server accepted a message. `sent_to` are the receivers' display names, if known."""

    message_id: int
    sent_to: tuple[str, ...] | None = None


class Undelivered(Struct, frozen=True):
    """The server refused a message, or will not receive the message."""

    message_id: int
    reason: str


RoomEvent: TypeAlias = (
    Synced
    | PresenceDiffed
    | ActivityReported
    | Delivered
    | Undelivered
    | ChatMessage
    | Disconnected
    | Error
    | GameInvite
    | Poked
)


class Room(Protocol):
    """The interface of a room over one protocol: the inputs of an `Endpoint`, and the commands of a room.

    The constructor of a room takes an outbox and a function. The room puts bytes and transport requests into
    the outbox, and passes each event to the function at once.
    """

    @property
    def is_closed(self) -> bool:
        """Whether the room is neither connected nor trying to connect."""
        ...

    @property
    def server_count(self) -> int | None:
        """The number of users that the server last reported, or `None` without a report."""
        ...

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest answered heartbeat in seconds, or `None` without an answer."""
        ...

    def connect(self, own: OnlineUser, *, now: float) -> None:
        """Enter the room, visible as `own`, and stay in the room until `disconnect`."""
        ...

    def disconnect(self, *, now: float) -> None:
        """Leave the room and close the connection, without reconnecting."""
        ...

    def show(self, own: OnlineUser, *, now: float) -> int | None:
        """Show the data in `own` as this user. Returns the message's id, or `None` if no reply follows."""
        ...

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send a `game_invite`, `poke` or `chat_message`, and return the message's id.

        `Delivered` or `Undelivered` follows. Raises `LocalProtocolError` if the protocol has no such event.
        """
        ...

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token, which is valid for `expires_in` seconds."""
        ...

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Handle the answer that the application has no access token now."""
        ...

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Works like `Endpoint.transport_opened`."""
        ...

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Works like `Endpoint.receive_data`."""
        ...

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """Works like `Endpoint.transport_closed`."""
        ...

    def tick(self, *, now: float) -> None:
        """Works like `Endpoint.tick`."""
        ...

    def next_deadline(self) -> float | None:
        """Works like `Endpoint.next_deadline`."""
        ...
