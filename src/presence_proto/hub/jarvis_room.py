"""The users of the Jarvis JSON protocol: who they are, and what they are told.

They meet the Supabase clients of the Jarvis system in its topic, and there everything is said the Supabase
way. A user is one member of the topic with one meta, however many connections it has. The room is a member
too, of another kind: it hears what the topic is told, and tells the users, each message encoded once.

All users are shown one roster, each without himself. It follows the presence of the topic: of a key with
several metas the latest is shown, and a change that a user would not see is not told. A broadcast of an
activity is shown at once; the track that says so too is then no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from presence_proto import broadcasts
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import TopicJoined, TopicLeft, UserStatus
from presence_proto.hub.ids import Grace
from presence_proto.hub.topic import Diff, Form, Meta, Shared, Topic, said, same_payload
from presence_proto.roster import user_from_meta
from presence_proto.serializer import EncodedFrame, UserBroadcast, encode_payload

if TYPE_CHECKING:
    from presence_proto.hub.ids import TimerName
    from presence_proto.hub.jarvis import JarvisSession
    from presence_proto.hub.topics import Topics
    from presence_proto.timers import Timers

TOPIC = "realtime:jarvis-presence"


class JarvisUser:
    """A user, and its connections. It is a member of the topic for its presence; the room hears for it."""

    __slots__ = ("_room", "sessions", "user_id")

    def __init__(self, room: JarvisRoom, user_id: str) -> None:
        self._room = room
        self.user_id = user_id
        self.sessions: list[JarvisSession] = []  # none while it is away

    def on_broadcast(self, shared: Shared, speaker: str | None) -> None:
        """What the room hears."""

    def on_diff(self, diff: Diff) -> None:
        """What the room hears."""

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the membership: the connections are closed, and the user is offline at once."""
        if not self.sessions:
            self._room.forget(self)
        for session in tuple(self.sessions):
            session.stop(TOPIC, reason, crashed=crashed)


@frozen
class _Shown:
    """What users are shown of one of them, and the ref of the meta that is behind it."""

    ref: str
    fields: Mapping[str, Any]
    wire: bytes  # the same as JSON

    @property
    def name(self) -> str:
        name: str = self.fields["display_name"]
        return name


class JarvisRoom:
    """All users. The room is in the topic while there are any."""

    __slots__ = ("_shown", "_timers", "_topic", "_topics", "_users")

    _topic: Topic  # while there are users

    def __init__(self, topics: Topics, timers: Timers[TimerName]) -> None:
        self._topics = topics
        self._timers = timers
        self._users: dict[str, JarvisUser] = {}
        self._shown: dict[str, _Shown] = {}  # the roster

    # -- coming and going

    def enter(self, session: JarvisSession, user_id: str, display_name: str) -> JarvisUser:
        """A connection says who it is. Who is here, or only away, is seen as before, but for the name.

        Raises `LocalProtocolError`, and changes nothing, when the name cannot be told.
        """
        user = self._users.get(user_id)
        if user is None:
            user = self._new_user(user_id, display_name)
        elif display_name != self._meta(user)["display_name"]:
            self._topic.track(user, user_id, {**self._meta(user), "display_name": display_name})
        self._timers.cancel(Grace(user_id))
        if session not in user.sessions:
            user.sessions.append(session)
            self._topics.emit(TopicJoined(session.conn, TOPIC, user_id))
        return user

    def leave(self, user: JarvisUser, session: JarvisSession, reason: str, *, for_good: bool) -> None:
        """A connection is over. With the last one goes the user: at once if `for_good`, or after a grace."""
        user.sessions.remove(session)
        self._topics.emit(TopicLeft(session.conn, TOPIC, reason))
        if user.sessions:
            return
        config = self._topics.config
        # Who is away is in nobody's count of connections: no more of them than there may be connections.
        if for_good or not config.offline_grace or len(self._users) > config.max_connections:
            self.forget(user)
        else:
            self._timers.set(Grace(user.user_id), self._topics.clock.now + config.offline_grace)

    def grace_ended(self, user_id: str) -> None:
        """The timer of a user has fired, who did not come back."""
        self.forget(self._users[user_id])

    def forget(self, user: JarvisUser) -> None:
        """A user without connections is offline."""
        self._timers.cancel(Grace(user.user_id))
        del self._users[user.user_id]
        self._topics.leave(self._topic, user)
        if not self._users:
            self._topics.leave(self._topic, self)
            self._shown.clear()

    def clear(self) -> None:
        """The hub stops, and has closed all connections: nobody is awaited any more."""
        for user in tuple(self._users.values()):
            self.forget(user)

    def _new_user(self, user_id: str, display_name: str) -> JarvisUser:
        if not self._users:
            self._topic = self._topics.enter(TOPIC, self)
            self._topic.reveal()
            for key in self._topic.online():
                self._look(key)
        user = self._users[user_id] = JarvisUser(self, user_id)
        self._topics.enter(TOPIC, user)
        stamp = self._stamp()
        meta = {
            "user_id": user_id,
            "display_name": display_name,
            "status": UserStatus.ONLINE.value,
            "activity": None,
            **({} if stamp is None else {"online_at": stamp}),
        }
        self._topic.track(user, user_id, meta)
        return user

    # -- what users do

    def welcome(self, user: JarvisUser) -> EncodedFrame:
        """The first message for a user: the roster. Put together by hand, as little of it has changed."""
        users = b",".join([shown.wire for key, shown in self._shown.items() if key != user.user_id])
        your_id = bytes(encode_payload(user.user_id))
        return EncodedFrame(b'{"type":"welcome","your_id":' + your_id + b',"users":[' + users + b"]}", True)

    def online_count(self, user: JarvisUser) -> int:
        """How many different users there are, this one included."""
        return len(self._shown) + (user.user_id not in self._shown)

    def update(self, user: JarvisUser, status: UserStatus, activity: str | None, metadata: Any) -> None:
        """A user does something else now. Raises `LocalProtocolError` when the metadata cannot be told."""
        more = {"status": status.value, "activity": activity}
        if metadata is not None:
            more["metadata"] = metadata
        meta = self._meta(user)
        payload = {name: value for name, value in meta.items() if name != "metadata"} | more
        if same_payload(meta, payload):
            return
        shared = self._said(user, "activity_update", more)
        self._topic.track(user, user.user_id, payload)
        self._topic.broadcast(shared, speaker=user.user_id)

    def invite(self, user: JarvisUser, game: str, code: str | None) -> list[str]:
        """Invite all others to a game. Returns the names of those who heard it."""
        payload = {"game": game} if code is None else {"game": game, "code": code}
        self._topic.broadcast(self._said(user, "game_invite", payload), speaker=user.user_id)
        names: dict[str, str] = {}
        for member in self._topic.members:
            tracked = self._topic.tracked(member)
            away = isinstance(member, JarvisUser) and not member.sessions
            if tracked is not None and tracked.key != user.user_id and not away:
                own = user_from_meta(tracked.key, tracked.meta).display_name
                names[tracked.key] = self._name(tracked.key, own)
        return list(names.values())

    def poke(self, user: JarvisUser, target: str) -> None:
        """Poke one user, who may be absent."""
        self._topic.broadcast(self._said(user, "poke", {"target_user_id": target}), speaker=user.user_id)

    def _said(self, user: JarvisUser, event: str, fields: Mapping[str, Any]) -> Shared:
        """A broadcast. It says who the user is; the user itself is not asked."""
        payload = {"user_id": user.user_id, "display_name": self._meta(user)["display_name"], **fields}
        return said(TOPIC, "broadcast", {"type": "broadcast", "event": event, "payload": payload})

    def _meta(self, user: JarvisUser) -> Meta:
        tracked = self._topic.tracked(user)
        assert tracked is not None  # from its connect to its end
        return tracked.meta

    # -- as a member of the topic

    def on_diff(self, diff: Diff) -> None:
        """The presence changed: show what is to be seen of it."""
        joined = dict.fromkeys(tracked.key for tracked in diff.joins)
        for key in joined:
            self._look(key)
        for key in dict.fromkeys(tracked.key for tracked in diff.leaves):
            if key not in joined:
                self._look(key, anew=True)

    def on_broadcast(self, shared: Shared, speaker: str | None) -> None:
        """Pass on what Jarvis has a form for, if who says it is who it says.

        The user id of a broadcast must be the presence key of its sender; only the hub speaks for anybody.
        """
        event, payload = _broadcast(shared)
        if speaker is not None and payload.get("user_id") != speaker:
            return
        try:
            match event:
                case "activity_update":
                    self._claimed(broadcasts.activity_update(payload))
                case "game_invite":
                    invite = broadcasts.game_invite(payload)
                    name = self._name(invite.user_id, invite.display_name)
                    fields = {"game": invite.game, "code": invite.code}
                    self._tell("game_invite", invite.user_id, name, fields)
                case "poke":
                    target, poked = broadcasts.poke(payload)
                    name = self._name(poked.user_id, poked.display_name)
                    self._tell("poke", poked.user_id, name, {}, to=target)
                case _:
                    pass  # chat, and what else Jarvis has no form for
        except RemoteProtocolError:
            pass  # malformed: who got it the Supabase way may make of it what they can

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The room goes with its last user."""

    # -- the roster

    def _look(self, key: str, *, anew: bool = False) -> None:
        """Show what there is to be seen of a user now, if that is news.

        `anew`: a claim is void. A device has left, which may have made it, and will not track it any more.
        """
        tracked, shown = self._topic.latest(key), self._shown.get(key)
        if tracked is None:
            if shown is not None:
                del self._shown[key]
                self._tell("user_offline", key, shown.name, {})
        elif anew or shown is None or shown.ref != tracked.ref:
            user = user_from_meta(key, tracked.meta)
            self._show(tracked.ref, key, user.display_name, user.status, user.activity)

    def _claimed(self, claim: broadcasts.ActivityClaim | None) -> None:
        """A user says to do something else. It stands until a newer meta of theirs comes, or one goes."""
        if claim is None:
            return
        tracked, shown = self._topic.latest(claim.user_id), self._shown.get(claim.user_id)
        if tracked is not None and shown is not None:
            self._topic.reveal()
            name = claim.display_name or shown.name
            self._show(tracked.ref, claim.user_id, name, claim.status, claim.activity)

    def _show(self, ref: str, key: str, name: str, status: UserStatus, activity: str | None) -> None:
        fields = {"user_id": key, "display_name": name, "status": status.value, "activity": activity}
        shown = self._shown.get(key)
        self._shown[key] = _Shown(ref, fields, bytes(encode_payload(fields)))
        if shown is None:
            self._tell("user_online", key, name, {})
            # Nothing in that says what the user does.
            before: Mapping[str, Any] = {**fields, "status": UserStatus.ONLINE.value, "activity": None}
        else:
            before = shown.fields
        if fields != before:
            self._tell("activity_changed", key, name, {"status": status.value, "activity": activity})

    def _name(self, user_id: str, otherwise: str) -> str:
        """The name that a user is shown with, or else what it calls itself."""
        shown = self._shown.get(user_id)
        return otherwise if shown is None else shown.name

    def _stamp(self) -> str | None:
        wall_clock = self._topics.config.wall_clock
        return None if wall_clock is None else wall_clock()

    def _tell(
        self, kind: str, user_id: str, name: str, fields: Mapping[str, Any], *, to: str | None = None
    ) -> None:
        """Tell something of a user to one, or to all others."""
        message = {"type": kind, "user_id": user_id, "display_name": name, **fields, "ts": self._stamp()}
        form = Form(EncodedFrame(bytes(encode_payload(message)), True))
        for user in self._users.values():
            if user.user_id == to or (to is None and user.user_id != user_id):
                for session in user.sessions:
                    session.send_shared(form)


def _broadcast(shared: Shared) -> tuple[Any, dict[str, Any]]:
    """The event and the payload of a broadcast, in whatever form it came; nothing of anything else."""
    content = shared.content
    event: Any = None
    payload: Any = None
    if isinstance(content, UserBroadcast):
        event, payload = content.event, content.payload
    elif isinstance(content, Mapping):
        event, payload = content.get("event"), content.get("payload")
    return event, dict(payload) if isinstance(payload, Mapping) else {}
