"""`RoomView`: the room getters of every `PresenceClient` of the adapters, independent of the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import presence_proto as core


class RoomView:
    """Getters for the current state of the room. The state already includes changes of queued events."""

    _core: core.PresenceClient

    @property
    def identity(self) -> core.Identity:
        """Identity of this client's user."""
        return self._core.identity

    @property
    def status(self) -> core.UserStatus:
        """Status of this client's user, as last set."""
        return self._core.status

    @property
    def activity(self) -> str | None:
        """Activity of this client's user, as last set."""
        return self._core.activity

    @property
    def online_users(self) -> tuple[core.OnlineUser, ...]:
        """All users in the room, this client's user first."""
        return self._core.online_users

    @property
    def online_count(self) -> int:
        """Number of users in the room, this client's user included."""
        return self._core.online_count

    @property
    def server_count(self) -> int | None:
        """Number of users that a Jarvis server last reported; `None` on Phoenix."""
        return self._core.server_count

    @property
    def pending_commands(self) -> frozenset[int]:
        """Ids of the commands that the server has neither acknowledged nor refused yet."""
        return self._core.pending_commands

    @property
    def is_stale(self) -> bool:
        """Whether the client is disconnected, so that the roster is its last known state."""
        return self._core.is_stale

    def user(self, user_id: str) -> core.OnlineUser | None:
        """Return the user with this id as others see them, or `None` if they are not in the room."""
        return self._core.user(user_id)

    def is_user_stale(self, user_id: str) -> bool:
        """Whether the data of a user in the room may be out of date.

        While `is_stale`, this is true for all users. Otherwise it is true for users who were in the room
        before the server restarted and have not returned yet.
        """
        return self._core.is_user_stale(user_id)

    def device_count(self, user_id: str) -> int:
        """Return the number of online devices of a user.

        It is 0 for users who are offline or stale, and for this client's user until others see it. On a
        Jarvis server it is 1 for all other online users.
        """
        return self._core.device_count(user_id)
