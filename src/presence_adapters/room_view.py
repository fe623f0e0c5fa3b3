"""What every `PresenceClient` of the adapters shows of the room, whatever loop it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import presence_proto as core


class RoomView:
    """Getters. They show the room as of now, ahead of the events that are still queued."""

    _core: core.PresenceClient

    @property
    def identity(self) -> core.Identity:
        """Who we are."""
        return self._core.identity

    @property
    def status(self) -> core.UserStatus:
        """Our status, as last set."""
        return self._core.status

    @property
    def activity(self) -> str | None:
        """Our activity, as last set."""
        return self._core.activity

    @property
    def online_users(self) -> tuple[core.OnlineUser, ...]:
        """Everybody in the room, ourselves first."""
        return self._core.online_users

    @property
    def online_count(self) -> int:
        """How many users are in the room."""
        return self._core.online_count

    @property
    def server_count(self) -> int | None:
        """How many users there are, as a Jarvis server last said; `None` on Phoenix."""
        return self._core.server_count

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        return self._core.pending_commands

    @property
    def is_stale(self) -> bool:
        """Whether the roster is only what it last was, because we are disconnected."""
        return self._core.is_stale

    def user(self, user_id: str) -> core.OnlineUser | None:
        """The user with this id as others see them, or `None` when they are not in the room."""
        return self._core.user(user_id)

    def is_user_stale(self, user_id: str) -> bool:
        """Whether what is shown of the user may be out of date.

        Of all users while `is_stale`; otherwise of those whom a restarted server has not seen again.
        """
        return self._core.is_user_stale(user_id)

    def device_count(self, user_id: str) -> int:
        """With how many devices a user is online: 0 for who is not, and for ourselves until others see us."""
        return self._core.device_count(user_id)
