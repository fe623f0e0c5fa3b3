"""The `PresenceClient` of asyncio and trio, but for the driver."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from attrs import evolve

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.async_clients import AsyncClient, AsyncQueue
from presence_adapters.notifications import logged, notification, who_and_where
from presence_adapters.recording import Recording
from presence_adapters.room_view import RoomView
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    import random
    import ssl

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.notifications import OnNotification
    from presence_adapters.recording import Record


class AsyncPresenceClient(RoomView, AsyncClient[core.PresenceClient, core.PresenceEvent]):
    """Who is online and what they are doing. Iterate over it for `PresenceEvent`s and `EventsDropped`.

    Made from an `Identity` and a `PresenceConfig`, or from the keywords of both:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`. `ssl_context`: for TLS with other rules than
    the system's. `proxy`: the URL of a proxy on the way, `""` for none; by default the environment
    says (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`). `access_token`: one, or a plain or `async`
    function that gives one; it is asked before connects, joins and the expiry of the last one.
    `rng` is for the jitter of the backoff.
    `online_at` is what others see as the time we came online, now by default. `record`: a path or a text
    file, to be written to for `presence replay`. The iteration ends after `disconnect` or a fatal `Error`,
    when everything queued was delivered.

    Commands return the core's id, which a `CommandFailed` would carry. They raise `LocalProtocolError` when
    they are not legal.

    Without `async with`, by callback: set `on_notification`, a plain or `async` function that is called with
    the type of every event and its data (see `presence_adapters.notifications`), and `await run()`.
    """

    def __init__(
        self,
        identity: core.Identity | None = None,
        config: core.PresenceConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        access_token: TokenProvider | str | None = None,
        max_queued_events: int = 10_000,
        rng: random.Random | None = None,
        online_at: str | None = None,
        record: Record | None = None,
        **settings: Any,
    ) -> None:
        identity, config = who_and_where(identity, config, settings)
        if access_token is not None:
            identity = evolve(identity, access_token=None)
        config = with_token(config, access_token)
        recording = Recording(record)
        endpoint = recording.presence_client(identity, config, rng, online_at)
        events: AsyncQueue[core.PresenceEvent] = AsyncQueue(
            max_queued_events, self._driver_type, lambda: self._driver.check()
        )
        super().__init__(
            endpoint,
            events,
            events.put,
            events.close,
            config,
            ssl_context,
            proxy,
            access_token,
            recording,
        )
        self.on_notification: OnNotification | None = None

    async def run(self) -> None:
        """Be connected, and call `on_notification` for every event, until `disconnect` or a fatal `Error`.

        What the callback raises is logged, and we go on. Cancelling this ends it.
        """
        async with self:
            async for event in self:
                event_type, data = notification(event)
                if self.on_notification is not None:
                    with logged(event_type):
                        result = self.on_notification(event_type, data)
                        if isawaitable(result):
                            await result

    async def update_activity(self, status: core.UserStatus, activity: str | None = None) -> int:
        """Be seen with this status and activity, now and after every reconnect."""
        return await self._command(self._core.update_activity, status, activity)

    async def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite everybody to a game."""
        return await self._command(self._core.send_invite, game, code)

    async def send_poke(self, user_id: str) -> int:
        """Poke a user."""
        return await self._command(self._core.send_poke, user_id)

    async def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Say something in a chat channel of the room."""
        return await self._command(self._core.send_chat, channel, content, reply_to, timestamp=utc_now())
