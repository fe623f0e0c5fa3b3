"""The checks of a simulated world: `Truth`, a `Watch` for each client, and `disagreement`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from attrs import define, frozen

from presence_proto import events
from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.hub.config import join_params_are_the_meta
from presence_proto.testing.contract import ContractError, PresenceFold, RealtimeFold
from presence_proto.testing.sim.laws import (
    ALIVE,
    ANSWER,
    FLICKER,
    FOLD,
    GHOST,
    GRACE,
    HONEST,
    ONCE,
    ORDER,
    QUIET,
    REACH,
    STORY,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from presence_proto.events import OnlineUser
    from presence_proto.hub import Hub
    from presence_proto.presence import Meta
    from presence_proto.presence_client import PresenceClient
    from presence_proto.realtime_client import RealtimeClient
    from presence_proto.testing.sim.hosts import ClientHost, HubHost
    from presence_proto.testing.sim.stage import Stage


# ------------------------------------------------------------------------------------------------------ truth
# The truth is the presence on the hub, by topic, with the start and end time of each presence.
#
# A client's view is compared with the truth at the moment when the hub sent the message, however late the
# message arrives. A hub with a presence window reports a change only when the window has ended. Until then
# its messages may reflect the truth from before the first unreported change, unless the client joined later.


Online: TypeAlias = "Mapping[str, tuple[Meta, ...]]"

MEMORY = 64
"""Maximum number of presences stored for each presence key of a topic."""

WINDOWS = 1024
"""Maximum number of presence windows stored for each topic."""


class Truth:
    """The hub's current presence and its history. All times are in virtual seconds of the world."""

    def __init__(self) -> None:
        self.version = 0  # incremented with each change
        self._online: dict[str, Online] = {}  # by topic
        self._presences: dict[tuple[str, str], deque[tuple[float, float]]] = {}  # start and end of each
        self._windows: dict[str, deque[tuple[float, float]]] = {}  # start and end of each, by topic
        self._waiting: frozenset[str] = frozenset()

    def online(self, topic: str) -> Online:
        """Return the metas that are present in a topic, by presence key."""
        return self._online.get(topic, {})

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics with at least one presence."""
        return tuple(topic for topic, online in self._online.items() if online)

    @property
    def waiting(self) -> frozenset[str]:
        """The topics with changes that the hub has not reported to any client yet."""
        return self._waiting

    def told_at(self, topic: str, when: float) -> float:
        """Return the earliest time whose presence a message on `topic`, sent at `when`, may reflect."""
        for began, ended in reversed(self._windows.get(topic, ())):
            if began <= when:
                # `<=`: at the very end of the window, the message may still precede the diff.
                return began if when <= ended else when
        return when

    def was_present(self, topic: str, key: str, since: float, until: float) -> bool:
        """Whether `key` was present at any moment from `since` to `until`, both inclusive."""
        presences = self._presences.get((topic, key), ())
        return any(began <= until and since <= ended for began, ended in presences)

    def was_absent(self, topic: str, key: str, since: float, until: float) -> bool:
        """Whether `key` was absent at any moment from `since` to `until`.

        The moments at which a presence begins and ends also count as absence.
        """
        presences = self._presences.get((topic, key), ())
        return not any(began < since and until < ended for began, ended in presences)

    def look(self, hub: Hub, now: float) -> None:
        """Update the presence and its history from the hub's state at `now`."""
        self._wait(frozenset(hub.waiting), now)
        names = hub.topics
        for topic in names:
            self._compare(topic, hub.online(topic), now)
        if len(names) < len(self._online):
            for topic in [topic for topic in self._online if topic not in names]:
                self._compare(topic, {}, now)
                del self._online[topic]

    def clear(self, now: float) -> None:
        """End all presences, because the hub has stopped."""
        self._wait(frozenset(), now)
        for topic in tuple(self._online):
            self._compare(topic, {}, now)
        self._online.clear()

    def _wait(self, waiting: frozenset[str], now: float) -> None:
        for topic in self._waiting - waiting:
            windows = self._windows[topic]
            windows[-1] = windows[-1][0], now
            self.version += 1
        for topic in waiting - self._waiting:
            self._windows.setdefault(topic, deque(maxlen=WINDOWS)).append((now, inf))
        self._waiting = waiting

    def _compare(self, topic: str, online: Online, now: float) -> None:
        before = self._online.get(topic, {})
        self._online[topic] = online
        if before == online:
            return
        self.version += 1
        for key, metas in before.items():
            if not _goes_on(metas, online.get(key, ())):
                presences = self._presences[topic, key]
                presences[-1] = presences[-1][0], now
        for key, metas in online.items():
            if not _goes_on(before.get(key, ()), metas):
                self._presences.setdefault((topic, key), deque(maxlen=MEMORY)).append((now, inf))


def _goes_on(before: tuple[Meta, ...], after: tuple[Meta, ...]) -> bool:
    """Whether a presence continues: at least one meta of `before` is kept or updated in `after`."""
    refs = {meta["phx_ref"] for meta in before}
    return any(meta["phx_ref"] in refs or meta.get("phx_ref_prev") in refs for meta in after)


# ------------------------------------------------------------------------------------------------------- post
# Messages between users. A client receives each message at most once. All recipients in the room receive each
# message that the hub has acknowledged.


Message: TypeAlias = tuple[str, str, str]
"""The kind of a message, the sender's user id, and the content (for a poke, the recipient's user id)."""


@frozen
class DeliveryRecord:
    """A message and its sending time, in virtual seconds."""

    message: Message
    said_at: float


@define
class MessageLog:
    """All messages of one room. `said` counts sent messages, `taken` lists messages the hub acknowledged."""

    said: Counter[Message]
    taken: list[DeliveryRecord]

    @classmethod
    def empty(cls) -> MessageLog:
        """Return a log without messages."""
        return cls(Counter(), [])


# ------------------------------------------------------------------------------------------------------ watch
# A watch checks the events and getters of one client against the laws.


ROOM = "realtime:jarvis-presence"
"""The topic of the presence room."""


class Watch(ABC):
    """Base class of the watches, with the checks that apply to every client."""

    def __init__(self, host: ClientHost, stage: Stage, fold: PresenceFold | RealtimeFold) -> None:
        self._host = host
        self._stage = stage
        self._fold = fold
        self._last_id = 0
        self._open: dict[int, str] = {}  # commands without a known outcome, by id

    # ---------------------------------------------------------------- what happens

    @abstractmethod
    def commanded(self, command: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record that the application called a command, which returned `result`."""

    def happened(self, happened: list[Any], sent: float | None) -> None:
        """Check the client's events. `sent` is the sending time of the bytes behind the events, or `None`."""
        try:
            for event in happened:
                self.saw(event, sent)
                self._fold.follow(event)
            self._fold.check()
        except ContractError as exc:
            self._broke(FOLD, str(exc))

    @abstractmethod
    def saw(self, event: Any, sent: float | None) -> None:
        """Check one event against the laws of the simulated world."""

    @abstractmethod
    def wrong_view(self) -> str | None:
        """Describe how the client's view differs from the truth, or return `None`.

        Call `wrong_view` only when the client has received all bytes that the hub has sent.
        """

    @abstractmethod
    def unsettled(self) -> str | None:
        """Describe how the client's state differs from what its application wants, or return `None`."""

    # ---------------------------------------------------------------- commands

    def _asked(self, command: str, number: int, seconds: float) -> None:
        """Record a command's id. The outcome is due within `seconds` on the client's clock."""
        if number <= self._last_id:
            self._broke(ANSWER, f"{command} has the id {number}, after {self._last_id}")
        self._last_id = number
        self._open[number] = command
        self._stage.agenda.after(seconds, self._due, number, self._host.told + seconds)

    def _due(self, number: int, told: float) -> None:
        if number not in self._open:
            return
        if self._host.told < told:  # the host was frozen, or its clock stepped backward
            self._stage.agenda.after(1.0 + told - self._host.told, self._due, number, told)
        elif self._is_pending(number):
            self._broke(ANSWER, f"{self._open[number]} (id {number}) is still pending")
        else:
            self._succeeded(number)

    @abstractmethod
    def _is_pending(self, number: int) -> bool:
        """Whether the client still reports the command as pending."""

    def _succeeded(self, number: int) -> None:
        del self._open[number]

    def _failed(self, number: int) -> str:
        if number not in self._open:
            self._broke(ANSWER, f"id {number} has another outcome")
        return self._open.pop(number)

    def _loses(self, reason: str, retry_in: float | None) -> None:
        """Check a failure that the client will retry. Failures are allowed only after the first fault."""
        if retry_in is not None and not self._stage.stats.faults:
            self._broke(QUIET, reason)

    def _broke(self, law: str, details: str) -> NoReturn:
        self._stage.broken(law, self._host.name, details)


class RoomWatch(Watch):
    """Watch of a `PresenceClient`."""

    _fold: PresenceFold

    def __init__(self, host: ClientHost, client: PresenceClient, stage: Stage, post: MessageLog) -> None:
        super().__init__(host, stage, PresenceFold(client))
        self._client = client
        self._own = client.identity.user_id
        self._post = post
        self._heard: Counter[Message] = Counter()
        self._letters: dict[int, DeliveryRecord] = {}  # by command id
        self._here_since: float | None = None
        self._was_here = False
        self._hub_start = 0  # `HubHost.starts` at the last join of the room; 0 once the application has left
        self._kept: dict[str, float] = {}  # users still shown -> a time at which they were absent
        self._told = inf  # the bytes just received reflect the truth of this time, or of a later one

    def happened(self, happened: list[Any], sent: float | None) -> None:
        """Check the client's events, as `Watch.happened` does."""
        if sent is not None:
            comes = any(isinstance(event, events.Connected) for event in happened)
            self._told = self._told_at(sent, comes=comes)
        super().happened(happened, sent)

    def commanded(self, command: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record a command that returned an id, and the message that the command sends."""
        if not isinstance(result, int):
            return
        self._asked(command, result, self._host.patience)
        if command in _SAYING:
            kind, index, name = _SAYING[command]
            message = kind, self._own, str(_argument(args, kwargs, index, name))
            self._post.said[message] += 1
            self._letters[result] = DeliveryRecord(message, self._stage.agenda.now)
        if not self._is_pending(result):
            # The command finished at once, without a receipt from the hub. Its message may still be lost with
            # the connection, so the watches do not require its delivery.
            self._letters.pop(result, None)
            self._succeeded(result)

    def saw(self, event: Any, sent: float | None) -> None:
        """Check that joins and leaves match the truth, and that each received message was sent."""
        match event:
            case events.Connected(_, users, resumed):
                if self._here_since is not None or resumed != self._was_here:
                    self._broke(STORY, f"{'here' if self._here_since else 'away'}, {resumed=}")
                self._here_since, self._was_here = self._stage.agenda.now, True
                self._comes(users[1:], sent)
            case events.UserOnline(user) | events.ActivityChanged(user):
                self._is_there(user.user_id, sent)
            case events.UserOffline(user):
                if not self._was_away(user.user_id, sent):
                    self._broke(FLICKER, f"{user.user_id} went offline, and was present without a break")
            case events.Disconnected(reason, retry_in):
                self._here_since = None
                if retry_in is None:  # the application left, so the restart grace does not apply
                    self._hub_start = 0
                self._loses(reason, retry_in)
            case events.GameInvite(user_id, _, game):
                self._hears(("invite", user_id, game), sent)
            case events.ChatMessage(user_id, _, _, content):
                self._hears(("chat", user_id, content), sent)
            case events.Poked(user_id):
                self._hears(("poke", user_id, self._own), sent)
            case events.CommandFailed(number, command):
                if self._failed(number) != command:
                    self._broke(ANSWER, f"id {number} is no {command}")
                self._letters.pop(number, None)
            case events.InviteSent(number):
                if self._open.get(number) != "send_invite":
                    self._broke(ANSWER, f"a receipt for id {number}, which is no open invite")
                self._succeeded(number)
            case events.Error(message, fatal=True):
                self._broke(ALIVE, f"it gave up: {message}")
            case _:
                pass

    def wrong_view(self) -> str | None:
        """Compare the users shown with the users present. The client's own user is always shown."""
        if not self._client.is_connected or not self._host.wanted:  # a leaving client ignores updates
            return None
        if ROOM in self._stage.hub.truth.waiting:
            return None
        shown, there = {*self._fold.users}, {*self._stage.hub.truth.online(ROOM)}
        shown -= self._stale()
        there.discard(self._own)
        if shown == there:
            return None
        return f"shows {sorted(shown - there)} too many and {sorted(there - shown)} too few"

    def unsettled(self) -> str | None:
        """Check that the client is in the room, shows all users correctly and has no pending commands."""
        client, name = self._client, self._host.name
        for number in [number for number in self._open if not self._is_pending(number)]:
            self._succeeded(number)
        if self._open:
            return f"{name} still has the commands {self._open} pending"
        if client.is_closed:
            return f"{name} is closed" if self._host.wanted else None
        if not client.is_connected:
            return f"{name} is not in the room"
        if stale := self._stale():
            return f"{name} waits for {sorted(stale)}, who may come back"
        if wrong := self.wrong_view():
            return f"{name} {wrong}"
        end = self._host.end
        if end is None or not end.peer.is_through:
            return f"{name} has not got everything yet"
        return self._wrong_looks() or self._unheard()

    def _wrong_looks(self) -> str | None:
        """Describe a user who is shown with a name, status or activity that none of their devices has."""
        online = self._stage.hub.truth.online(ROOM)
        for user_id, user in self._fold.users.items():
            looks = user.display_name, user.status, user.activity
            if looks not in [looks_of(meta) for meta in online[user_id]]:
                return f"{self._host.name} shows {looks}, which is not how {user_id} is: {online[user_id]}"
        return None

    def _unheard(self) -> str | None:
        since = inf if self._here_since is None else self._here_since
        for letter in self._post.taken:
            kind, user_id, text = letter.message
            for_us = user_id != self._own and (kind != "chat" or self._host.hears_chat)
            for_us = for_us and (kind != "poke" or text == self._own)
            once = self._post.said[letter.message] == 1
            if for_us and once and letter.said_at > since and not self._heard[letter.message]:
                self._broke(REACH, f"was there all the time since, and never heard {letter.message}")
        return None

    def _comes(self, users: tuple[OnlineUser, ...], sent: float | None) -> None:
        """Check that each user of a `Connected` event was present or was shown before."""
        shown, hub = self._fold.users, self._stage.hub
        truth = hub.truth
        for user in users:
            user_id = user.user_id
            if user_id not in shown or self._was_there(user_id, sent):
                self._is_there(user_id, sent)
            # A user who joined or left within a presence window may be missing from the received state. The
            # client then keeps showing the user.
            if sent is not None and user_id in shown and truth.was_absent(ROOM, user_id, self._told, sent):
                self._kept[user_id] = self._told
        missing = shown.keys() - {user.user_id for user in users}
        if hub.starts > self._hub_start > 0 and missing and self._host.has_grace:
            self._broke(GRACE, f"{sorted(missing)} went when the hub was restarted")
        self._hub_start = hub.starts

    def _stale(self) -> set[str]:
        return {user_id for user_id in self._fold.users if self._client.is_user_stale(user_id)}

    def _was_there(self, user_id: str, sent: float | None) -> bool:
        return sent is not None and self._stage.hub.truth.was_present(ROOM, user_id, self._told, sent)

    def _was_away(self, user_id: str, sent: float | None) -> bool:
        """Whether the user was absent in the truth that the bytes reflect, or at a time since `_kept`."""
        truth = self._stage.hub.truth
        since = self._kept.pop(user_id, None)
        if since is not None and truth.was_absent(ROOM, user_id, since, self._stage.agenda.now):
            return True
        return sent is not None and truth.was_absent(ROOM, user_id, self._told, sent)

    def _is_there(self, user_id: str, sent: float | None) -> None:
        if not self._was_there(user_id, sent):
            self._broke(GHOST, f"{user_id} was not there when the hub said so")

    def _told_at(self, sent: float, *, comes: bool) -> float:
        """Return the time of the oldest truth that bytes sent at `sent` may reflect.

        `comes` means that the bytes complete a join: their presence state reflects the truth of the join. On
        the Jarvis JSON protocol all clients get the same roster, so the time of the join does not matter.
        """
        hub, end = self._stage.hub, self._host.end
        told = hub.truth.told_at(ROOM, sent)
        if end is None or not self._host.hears_chat:
            return told
        joined = min(sent, hub.joined_at(end.peer.conn, ROOM))
        return joined if comes else max(told, joined)

    def _hears(self, message: Message, sent: float | None) -> None:
        sender = message[1]
        is_shown = sender == self._own or sender in self._fold.users
        # A sender who does not track is never shown, and bytes of a cut connection may arrive late. So the
        # law holds only for senders who were present when the hub sent the message.
        is_there = sent is not None and not self._stage.hub.truth.was_absent(ROOM, sender, sent, sent)
        if self._here_since is not None and is_there and not is_shown:
            self._broke(ORDER, f"{message} was heard, and {sender} was not shown")
        self._heard[message] += 1
        if self._heard[message] > self._post.said[message]:
            self._broke(ONCE, f"{message} was heard {self._heard[message]} times")

    def _is_pending(self, number: int) -> bool:
        return number in self._client.pending_commands

    def _succeeded(self, number: int) -> None:
        super()._succeeded(number)
        letter = self._letters.pop(number, None)
        if letter is not None:
            self._post.taken.append(letter)


_SAYING = {
    "send_invite": ("invite", 0, "game"),
    "send_poke": ("poke", 0, "target_user_id"),
    "send_chat": ("chat", 1, "content"),
}
"""Command that sends a message -> kind of the message, position and name of the content argument."""


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str) -> Any:
    return args[index] if len(args) > index else kwargs.get(name)


def looks_of(meta: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return the display name, status and activity of a meta in the room."""
    return meta["display_name"], meta["status"], meta["activity"]


class ChannelWatch(Watch):
    """Watch of a `RealtimeClient`.

    `wants` maps each topic that the application has joined to the presence key and the tracked payload. The
    payload is `None` when nothing is tracked.
    """

    _fold: RealtimeFold

    def __init__(self, host: ClientHost, client: RealtimeClient, stage: Stage) -> None:
        super().__init__(host, stage, RealtimeFold(client))
        self._client = client
        self.wants: dict[str, tuple[str, Mapping[str, Any] | None]] = {}
        self._synced: set[str] = set()  # topics with a presence state, according to the events

    def commanded(self, command: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record pushes and the wanted topics, but no broadcasts: a broadcast may have no outcome."""
        topic = _argument(args, kwargs, 0, "topic")
        match command:
            case "push":
                self._asked(command, result, self._host.patience)
            case "join":
                self.wants.setdefault(topic, _present(topic, _argument(args, kwargs, 1, "params")))
            case "leave":
                del self.wants[topic]
            case "track" | "untrack":
                payload = _argument(args, kwargs, 1, "payload")  # `None` for untrack
                self.wants[topic] = self.wants[topic][0], payload
            case _:
                pass

    def saw(self, event: Any, sent: float | None) -> None:
        """Check that the client does not stop by itself, and that the hub does not violate the protocol."""
        match event:
            case events.PushReplied(number) | events.PushFailed(number):
                self._open.pop(number, None)  # `RealtimeFold` rejects a second outcome
            case events.SocketDisconnected(reason, fatal=True):
                self._broke(ALIVE, f"it gave up: {reason}")
            case events.ProtocolViolation(reason):
                self._broke(HONEST, reason)
            case events.SocketDisconnected(reason, retry_in=retry_in):
                self._synced.clear()
                self._loses(reason, retry_in)
            case events.ChannelDown(topic, reason, retry_in) | events.JoinFailed(topic, reason, _, retry_in):
                self._synced.discard(topic)
                self._loses(f"{topic}: {reason}", retry_in)
            case events.ChannelJoined(topic) | events.ChannelLeft(topic):
                self._synced.discard(topic)
            case events.PresenceSynced(topic):
                self._synced.add(topic)
            case events.TrackFailed(topic, reason):
                self._loses(f"{topic}: {reason}", 0.0)
            case events.Broadcast(topic, "hello", {"from": sender}) | events.ChannelMessage(
                topic, "hello", {"from": sender}
            ):
                self._hears(topic, sender, sent)
            case _:
                pass

    def wrong_view(self) -> str | None:
        """Compare the `phx_ref`s of each synced topic with those of the hub."""
        for topic in self._client.channels:
            if self._client.is_synced(topic) and topic not in self._stage.hub.truth.waiting:
                held = {key: _refs(metas) for key, metas in self._client.presence(topic).items()}
                there = {key: _refs(metas) for key, metas in self._stage.hub.truth.online(topic).items()}
                if held != there:
                    return f"in {topic} holds {held}, and there are {there}"
        return None

    def unsettled(self) -> str | None:
        """Check that the client has no pending pushes, has joined its topics and shows their presence."""
        client, name = self._client, self._host.name
        if self._open:
            return f"{name} still has the pushes {self._open} pending"
        if client.is_closed:
            return f"{name} is closed" if self._host.wanted else None
        if sorted(client.channels) != sorted(self.wants):
            return f"{name} has the channels {client.channels}, and wants {[*self.wants]}"
        for topic in self.wants:
            if client.state_of(topic) is not ChannelState.JOINED or not client.is_synced(topic):
                return f"{name} is {client.state_of(topic).name} in {topic}, and not synced"
        wrong = self.wrong_view()
        return None if wrong is None else f"{name} {wrong}"

    def _hears(self, topic: str, sender: str, sent: float | None) -> None:
        if sent is None or topic not in self._synced or sender in self._fold.presence[topic]:
            return
        if not self._stage.hub.truth.was_absent(topic, sender, sent, sent):
            self._broke(ORDER, f"{sender} was heard in {topic}, and was not shown")

    def _is_pending(self, number: int) -> bool:
        return number in self._open


def _present(topic: str, params: Any) -> tuple[str, Mapping[str, Any] | None]:
    """Return the presence key and payload that a join with `params` tracks. The payload may be `None`."""
    if isinstance(params, ChannelConfig):
        return params.presence_key, None
    return join_params_are_the_meta(topic, params) or ("", None)


def _refs(metas: tuple[Mapping[str, Any], ...]) -> list[str]:
    return sorted(meta["phx_ref"] for meta in metas)


# -------------------------------------------------------------------------------------------------- agreement


def disagreement(hub: HubHost, clients: Iterable[ClientHost]) -> str | None:
    """Describe why the world is not settled, or return `None` for a settled world.

    In a settled world, the hub has no unreported changes, each endpoint has noticed its dead connections,
    each client is in the state that its application wants, and the hub's presence is what the clients want.
    The last check is skipped when a client has no watch, because its wanted state is unknown.
    """
    if hub.truth.waiting:
        return f"the hub has changes to tell in {sorted(hub.truth.waiting)}"
    hosts = tuple(clients)
    for host in (hub, *hosts):
        for conn, end in host.ends.items():
            if not end.is_alive:
                what = (
                    "has not noticed that it is dead"
                    if end.is_open or end.was_closed
                    else "is still connecting"
                )
                return f"{host.name}, connection {conn}: {what}"
    for host in hosts:
        if host.watch is not None and (problem := host.watch.unsettled()) is not None:
            return problem
    if all(host.watch is not None for host in hosts):
        return _wrong_truth(hub.truth, hosts)
    return None


def _wrong_truth(truth: Truth, hosts: tuple[ClientHost, ...]) -> str | None:
    wanted: dict[str, dict[str, list[Any]]] = {ROOM: {}}  # the visible parts of metas, by topic and key
    nameless: set[str] = set()  # topics where the server generates the presence keys
    shared: dict[str, list[Any]] = {}  # by user: the looks of each Jarvis device, or `None` when offline
    for host in hosts:
        if isinstance(host.watch, RoomWatch):
            client: PresenceClient = host.endpoint
            user_id, seen = client.identity.user_id, _seen(client)
            if not host.hears_chat:
                shared.setdefault(user_id, []).append(seen if host.wanted else None)
            elif host.wanted:
                wanted[ROOM].setdefault(user_id, []).append(seen)
        elif isinstance(host.watch, ChannelWatch) and host.wanted:
            for topic, (key, payload) in host.watch.wants.items():
                if payload is not None and not key:
                    nameless.add(topic)
                elif payload is not None:
                    wanted.setdefault(topic, {}).setdefault(key, []).append(_payload(topic, payload))
    for user_id, devices in shared.items():
        _share(wanted[ROOM], user_id, devices, [*map(looks_of, truth.online(ROOM).get(user_id, ()))])
    for topic in sorted({*truth.topics, *wanted} - nameless):
        online = truth.online(topic)
        there = {key: [_payload(topic, meta) for meta in metas] for key, metas in online.items()}
        if _sorted(there) != _sorted(wanted.get(topic, {})):
            return f"on the hub {topic} has {there}, and clients want {wanted.get(topic, {})}"
    return None


def _share(wanted: dict[str, list[Any]], user_id: str, devices: list[Any], there: list[Any]) -> None:
    """Add the single presence that all Jarvis devices of a user share, with the state of any device."""
    online = [seen for seen in devices if seen is not None]
    if online:
        mine = wanted.setdefault(user_id, [])
        for seen in mine:
            if seen in there:
                there.remove(seen)
        mine.append(there[0] if len(devices) > 1 and there else online[0])


def _seen(client: PresenceClient) -> tuple[Any, ...]:
    return client.identity.display_name, str(client.status), client.activity


def _payload(topic: str, meta: Mapping[str, Any]) -> Any:
    """Return the part of a meta that must match what the client wants."""
    if topic == ROOM:
        return looks_of(meta)
    return sorted((name, value) for name, value in meta.items() if name not in ("phx_ref", "phx_ref_prev"))


def _sorted(presence: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {key: sorted(map(repr, metas)) for key, metas in presence.items()}
