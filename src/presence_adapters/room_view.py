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
    def latency(self) -> float | None:
        """How long the latest heartbeat took there and back, in seconds; `None` before there was one."""
        return self._core.latency

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        return self._core.pending_commands

    @property
    def is_stale(self) -> bool:
        """Whether the roster is only what it last was, because we are disconnected."""
        return self._core.is_stale

    def device_count(self, user_id: str) -> int:
        """With how many devices a user is online: 0 for who is not, and for ourselves until others see us."""
        return self._core.device_count(user_id)
