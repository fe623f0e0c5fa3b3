"""Checks of the driver contract (the laws of `docs/contract.md`) and of the events that clients report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from presence_proto import events
from presence_proto.channel import ChannelState
from presence_proto.endpoint import MERGED, AccessTokenNeeded, CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.events import HubEvent, PresenceEvent, RealtimeEvent
from presence_proto.hub import Hub
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from presence_proto.endpoint import Endpoint
    from presence_proto.events import OnlineUser
    from presence_proto.presence import Meta, PresenceChange


_EVENTS: tuple[tuple[type, tuple[type, ...]], ...] = (
    (RealtimeClient, (AccessTokenNeeded, *get_args(RealtimeEvent))),
    (PresenceClient, (AccessTokenNeeded, *get_args(PresenceEvent))),
    (Hub, get_args(HubEvent)),
)


class ContractError(AssertionError):
    """An endpoint broke the driver contract or the documented rules for its events."""


def require(condition: bool, rule: str) -> None:
    """Raise `ContractError` with the text `rule` if `condition` is false."""
    if not condition:
        raise ContractError(rule)


class Contract:
    """Checker of one endpoint's outputs. `drain` raises `ContractError` when the endpoint breaks a law:

    - Draining runs no protocol code: the deadline stays the same, and a second drain returns nothing.
    - The deadline is `None` or in the future. Exception: while a hub has unprocessed received bytes, the
      deadline of the hub is the current time.
    - `SendData` is never empty. Two adjacent `SendData` for one connection are legal only when exactly one
      output is a pong, or when the data of both outputs exceeds 64 KiB in total.
    - Outputs refer only to open connections. Connection ids only increase. A client has at most one
      connection.
    - The type of every event is documented for the endpoint.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.deadline: float | None = None  # seconds; the deadline at the last drain
        self._events = next((events for kind, events in _EVENTS if isinstance(endpoint, kind)), (object,))
        self._live: set[ConnId] = set()
        self._last = ConnId(0)

    def accepted(self, conn: ConnId) -> None:
        """Record a transport that opened without an `OpenTransport`, as all transports of a hub do."""
        self._live.add(conn)

    def closed(self, conn: ConnId) -> None:
        """Record the end of a transport. Call `closed` before the endpoint's `transport_closed`."""
        self._live.discard(conn)

    def drain(self, now: float) -> list[Any]:
        """Drain the endpoint and return its checked outputs. `now` is the time of the latest call."""
        # Hot path: simulated worlds drain after every call. Error texts are formatted only for a broken rule.
        endpoint = self._endpoint
        deadline = self.deadline = endpoint.next_deadline()
        outputs = list(endpoint.drain())
        previous = None
        for output in outputs:
            self._check(output, previous)
            previous = output
        if outputs:
            require(not endpoint.drain(), "a drain takes all outputs: after it there are none")
            require(endpoint.next_deadline() == deadline, "draining does not change the deadline")
        if deadline is not None and deadline <= now and not self._has_backlog():
            raise ContractError(f"the deadline {deadline} is not after {now}")
        return outputs

    def _has_backlog(self) -> bool:
        """Whether a hub has unprocessed received bytes. The hub's deadline is then the current time."""
        return isinstance(self._endpoint, Hub) and self._endpoint.has_backlog

    def idle_tick(self, now: float) -> None:
        """Call the endpoint's `tick` before the deadline, and check that the call has no effect."""
        deadline = self._endpoint.next_deadline()
        self._endpoint.tick(now=now)
        require(not self._endpoint.drain(), "an early tick does nothing")
        require(self._endpoint.next_deadline() == deadline, "an early tick does not change the deadline")

    def _check(self, output: Any, previous: Any) -> None:
        if isinstance(output, SendData):
            conn = output.conn
            if conn not in self._live:
                raise ContractError(f"data for connection {conn}, which is not open")
            require(len(output.data) > 0, "SendData is never empty")
            if isinstance(previous, SendData) and previous.conn == conn:
                large = len(previous.data) + len(output.data) > MERGED
                merged = previous.is_pong != output.is_pong or large
                require(merged, "two SendData for one connection stand side by side")
        elif isinstance(output, OpenTransport):
            conn = output.conn
            require(not self._live, "a client has one connection at most")
            require(conn > self._last, f"ids only grow: {conn} came after {self._last}")
            self._live.add(conn)
            self._last = conn
        elif isinstance(output, CloseTransport):
            conn = output.conn
            require(conn in self._live, f"connection {conn} is closed, and is not open")
            self._live.remove(conn)
        elif not isinstance(output, self._events):
            raise ContractError(f"{output!r} is no documented event")


# ------------------------------------------------------------------------------------------------------ folds
# A fold rebuilds a client's state from its events, as an application does.
#
# A fold raises `ContractError` when an event cannot follow the previous events. After every drain, the
# rebuilt roster, or the rebuilt presence of each topic, must equal the client's.


class RealtimeFold:
    """State of one `RealtimeClient`, rebuilt from its events. The fold checks these rules:

    - The client does not connect twice without a disconnect. Channels are joined only while the client is
      connected. Only a joined channel goes down. The delay before a reconnect is positive.
    - A push has at most one outcome.
    - The presence rebuilt from the reported changes equals the client's presence.
    """

    def __init__(self, client: RealtimeClient) -> None:
        self._client = client
        self.connected = False
        self.joined: set[str] = set()
        self.missing: set[str] = set()  # joined topics without a presence state (`PresenceMissing`)
        self.outcomes: dict[int, events.PushReplied | events.PushFailed] = {}
        self.presence: dict[str, dict[str, dict[str, Meta]]] = {}  # topic -> key -> phx_ref -> meta

    def follow(self, event: Any) -> None:
        """Apply the client's next event to the rebuilt state."""
        match event:
            case events.SocketConnected():
                require(not self.connected, "connected twice")
                self.connected = True
            case events.SocketDisconnected(retry_in=retry_in, fatal=fatal):
                require(retry_in is None or retry_in > 0, f"the next attempt is in {retry_in} s")
                require(not (fatal and retry_in is not None), "what is fatal is not tried again")
                self.connected = False
            case events.ChannelJoined(topic=topic):
                require(self.connected, f"{topic!r} was joined without a connection")
                self.joined.add(topic)
                self.missing.discard(topic)
            case events.ChannelDown(topic=topic):
                require(topic in self.joined, f"{topic!r} is down, and was not up")
                self.joined.remove(topic)
            case events.JoinFailed(topic=topic):
                self.joined.discard(topic)
            case events.ChannelLeft(topic=topic):
                self.joined.discard(topic)
                self.presence.pop(topic, None)
            case events.PushReplied(push_id=push_id) | events.PushFailed(push_id=push_id):
                require(push_id not in self.outcomes, f"push {push_id} has two outcomes")
                self.outcomes[push_id] = event
            case events.PresenceSynced() | events.PresenceDiffed():
                fold_changes(self.presence.setdefault(event.topic, {}), event.changes)
            case events.PresenceMissing(topic=topic):
                self.missing.add(topic)

    def check(self) -> None:
        """Compare the rebuilt state with the client's state. Call `check` only after a drain."""
        client = self._client
        require(client.next_deadline() is not None or client.is_closed, "a client that waits has a deadline")
        for topic in client.channels:
            if client.state_of(topic) is not ChannelState.LEAVING:
                held = {key: _by_ref(metas) for key, metas in client.presence(topic).items()}
                folded = self.presence.get(topic, {})
                require(folded.keys() == held.keys(), f"{topic!r}: the events say {[*folded]}, not {[*held]}")
                for key, metas in held.items():
                    require([*folded[key]] == [*metas], f"{topic!r}: the refs of {key!r} differ")
                    require(repr(folded[key]) == repr(metas), f"{topic!r}: the metas of {key!r} differ")


class PresenceFold:
    """State of one `PresenceClient`, rebuilt from its events. `users` holds the other users of the roster.

    - No user joins, leaves or changes while the client is disconnected.
    - After a `Connected` event with `resumed=True`, one event follows for each change since the old roster.
    - No user joins twice without leaving. `UserOffline.user` and `ActivityChanged.previous` equal the user's
      last reported state. An `ActivityChanged` event always contains a change.
    - `online_users` starts with the client's own user, lists no user twice, and otherwise equals `users`.
    """

    def __init__(self, client: PresenceClient) -> None:
        self._client = client
        self._own = client.identity.user_id
        self.connected = False
        self.users: dict[str, OnlineUser] = {}
        self.owed: list[Any] = []  # net differences whose events have not arrived yet
        self.failed: dict[int, events.CommandFailed] = {}

    def follow(self, event: Any) -> None:
        """Apply the client's next event to the rebuilt state."""
        match event:
            case events.Connected():
                require(not self.connected, "connected twice")
                self.connected = True
                self._enter(event)
            case events.Disconnected():
                self.connected = False
            case events.UserOnline() | events.UserOffline() | events.ActivityChanged():
                require(self.connected, f"{event!r} while we are out of the room")
                if self.owed:
                    require(event in self.owed, f"{event!r} is no net difference, or was told before")
                    self.owed.remove(event)
                else:
                    self._changed(event)
            case events.CommandFailed(command_id=command_id):
                require(command_id not in self.failed, f"command {command_id} failed twice")
                self.failed[command_id] = event

    def check(self) -> None:
        """Compare the rebuilt state with the client's state. Call `check` only after a drain."""
        client = self._client
        require(client.is_connected == self.connected, "is_connected is what the events say")
        require(not self.owed, f"net differences were not told: {self.owed}")
        own, *others = client.online_users
        require(own.user_id == self._own, "we are the first in the roster")
        require({user.user_id: user for user in others} == self.users, "the roster is what the events say")
        require(client.online_count == len(self.users) + 1, "nobody is counted twice")

    def _enter(self, event: events.Connected) -> None:
        users = {user.user_id: user for user in event.users}
        require(event.online_count == len(event.users) == len(users), "nobody is counted twice")
        del users[self._own]
        if event.resumed:
            self.owed = differences(self.users, users)
        self.users = users

    def _changed(self, event: events.UserOnline | events.UserOffline | events.ActivityChanged) -> None:
        user_id, shown = event.user.user_id, self.users.get(event.user.user_id)
        if isinstance(event, events.UserOnline):
            require(shown is None and user_id != self._own, f"{user_id!r} came online twice")
        elif isinstance(event, events.UserOffline):
            require(shown == event.user, f"{user_id!r} went offline as another than it was shown")
            del self.users[user_id]
            return
        else:
            require(shown == event.previous, f"{user_id!r} was not shown as {event.previous!r}")
            require(event.user != event.previous, f"nothing changed of {user_id!r}")
        self.users[user_id] = event.user


Fold: TypeAlias = RealtimeFold | PresenceFold


def fold_of(client: RealtimeClient | PresenceClient) -> Fold:
    """Return a new fold for a client that has not reported any event yet."""
    return PresenceFold(client) if isinstance(client, PresenceClient) else RealtimeFold(client)


def fold_changes(held: dict[str, dict[str, Meta]], changes: Iterable[PresenceChange]) -> None:
    """Apply the changes of a `PresenceSynced` or `PresenceDiffed` to `held` (key -> phx_ref -> meta).

    Raise `ContractError` for a change that contradicts `held`.
    """
    for change in changes:
        metas = held.setdefault(change.key, {})
        require((change.kind == "joined") == (not metas), f"{change.key!r} {change.kind}, with {[*metas]}")
        for meta in change.left:
            require(metas.pop(meta["phx_ref"], None) is not None, f"{change.key!r}: a meta left twice")
        joined = _by_ref(change.joined)
        require(not metas.keys() & joined.keys(), f"{change.key!r}: a meta joined twice")
        metas.update(joined)
        require((change.kind == "left") == (not metas), f"{change.key!r} {change.kind}, to {[*metas]}")
        if not metas:
            del held[change.key]


def differences(old: dict[str, OnlineUser], new: dict[str, OnlineUser]) -> list[Any]:
    """Return the events that describe the change from `old` to `new` (user id -> user)."""
    return [
        *(events.UserOnline(user) for key, user in new.items() if key not in old),
        *(events.UserOffline(user) for key, user in old.items() if key not in new),
        *(
            events.ActivityChanged(new[key], user)
            for key, user in old.items()
            if key in new and new[key] != user
        ),
    ]


def _by_ref(metas: Iterable[Meta]) -> dict[str, Meta]:
    return {meta["phx_ref"]: meta for meta in metas}
