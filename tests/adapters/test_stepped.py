"""`stepped`: both clients in loops of their hosts' own, over real sockets against the hub."""

from __future__ import annotations

import selectors
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from adapters.hub_thread import HubThread, hub_thread, nothing_left, pause, until
from presence_adapters.stepped import (
    Channel,
    ConnectError,
    EventsDropped,
    JoinError,
    PresenceClient,
    PushError,
    RealtimeClient,
)
from presence_proto import (
    Broadcast,
    ChannelConfig,
    ChannelDown,
    ChannelJoined,
    ChannelMessage,
    ChatMessage,
    ConfigError,
    Connected,
    Disconnected,
    Error,
    HubConfig,
    Identity,
    LocalProtocolError,
    Poked,
    PresenceConfig,
    PresenceDiffed,
    PushFailed,
    RealtimeConfig,
    SocketConnected,
    SocketDisconnected,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACKED = ChannelConfig(broadcast_ack=True, broadcast_self=True)


@pytest.fixture
def hub() -> Iterator[HubThread]:
    with nothing_left(), hub_thread() as one:
        yield one


def config(hub: HubThread, **options: Any) -> PresenceConfig:
    return PresenceConfig(**{"server_url": hub.url, "reconnect_delay": 0.05, **options})


def presence(hub: HubThread, name: str = "alice", **options: Any) -> PresenceClient:
    return PresenceClient(Identity(name, name.title()), config(hub, **options))


def realtime(hub: HubThread, url: str | None = None, **options: Any) -> RealtimeClient:
    return RealtimeClient(RealtimeConfig(server_url=url or hub.url, **{"reconnect_delay": 0.05, **options}))


def frames(*clients: PresenceClient | RealtimeClient, until: Callable[[], Any], seconds: float = 5) -> None:
    """A game at 500 Hz."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.002)
        for client in clients:
            client.step()


class Seen:
    """The events of a client or channel, read whenever they are looked at."""

    def __init__(self, source: PresenceClient | RealtimeClient | Channel) -> None:
        self._source = source
        self._events: list[Any] = []

    def all(self, kind: type[Any] = object) -> list[Any]:
        self._events += self._source.events()
        return [event for event in self._events if isinstance(event, kind)]

    def kinds(self) -> list[type[Any]]:
        return [type(event) for event in self.all()]


# ---------------------------------------------------------------------------------------------- life


def test_two_people_meet(hub: HubThread) -> None:
    with presence(hub) as alice, presence(hub, "bob") as bob:
        seen = Seen(alice)
        assert alice.identity == Identity("alice", "Alice")
        assert (alice.is_connected, alice.is_stale, alice.is_closed) == (False, True, False)
        frames(alice, bob, until=lambda: alice.online_count == bob.online_count == 2)
        assert alice.is_connected
        ids = [bob.update_activity(UserStatus.AWAY, "Lunch"), bob.send_poke("alice")]
        ids += [bob.send_invite("Snake"), bob.send_chat("lobby", "hello", reply_to="m1")]
        assert ids == sorted(set(ids))
        frames(alice, bob, until=lambda: seen.all(ChatMessage))
        assert seen.all(ChatMessage)[0].timestamp.endswith("Z")
        assert {user.activity for user in alice.online_users} == {None, "Lunch"}
        assert alice.online_users[0].online_at is not None


def test_before_connecting_nothing_happens(hub: HubThread) -> None:
    alice = presence(hub)
    alice.step()
    assert (alice.fileno(), alice.wants_write, alice.next_delay()) == (-1, False, None)
    assert not alice.is_closed
    for early in (lambda: alice.send_poke("bob"), alice.events, alice.wait_connected):
        with pytest.raises(LocalProtocolError, match=r"not running yet: call `connect\(\)` first"):
            early()
    alice.connect()
    assert alice.next_delay() == 0
    with pytest.raises(LocalProtocolError, match="connect was already called"):
        alice.connect()
    frames(alice, until=lambda: alice.is_connected)
    alice.close()


def test_a_goodbye_takes_steps(hub: HubThread) -> None:
    alice = presence(hub)
    alice.connect()
    frames(alice, until=lambda: alice.is_connected)
    alice.disconnect()
    alice.disconnect()
    assert not alice.is_closed
    frames(alice, until=lambda: alice.is_closed)
    assert (alice.fileno(), alice.next_delay()) == (-1, None)
    assert [type(event) for event in alice.events()] == [Connected, Disconnected]
    for command in (lambda: alice.send_poke("bob"), alice.connect):
        with pytest.raises(ConnectError):
            command()
    alice.step()
    alice.close()
    until(lambda: not hub.connections)


def test_closing_is_at_once_and_says_goodbye_if_it_can(hub: HubThread) -> None:
    alice, bob = presence(hub), presence(hub, "bob")
    alice.connect()
    alice.close()
    assert alice.is_closed
    with bob:
        frames(bob, until=lambda: bob.is_connected)
    assert bob.is_closed
    assert [type(event) for event in bob.events()] == [Connected, Disconnected]
    presence(hub, "carol").close()
    until(lambda: not hub.connections)


def test_a_lost_connection_comes_back(hub: HubThread) -> None:
    with presence(hub) as alice:
        seen = Seen(alice)
        frames(alice, until=lambda: alice.is_connected)
        hub.cut(hub.connections[0], reset=True)
        frames(alice, until=lambda: len(seen.all(Connected)) == 2)
        assert seen.kinds() == [Connected, Disconnected, Connected]
        assert seen.all(Disconnected)[0].reason == "the connection was lost (connection reset by peer)"


def test_a_refusal_for_good_ends_it() -> None:
    with nothing_left(), hub_thread(HubConfig(api_keys=frozenset({"right"}))) as hub:
        alice = presence(hub, api_key="wrong-key")
        alice.connect()
        frames(alice, until=lambda: alice.is_closed)
        events: list[Any] = []
        for _ in range(2):
            with pytest.raises(ConnectError, match="HTTP 401"):
                for event in alice.events():
                    events.append(event)
        assert [type(event) for event in events] == [Disconnected, Error]
        assert "wrong-key" not in repr(events)


def test_a_token_can_be_changed() -> None:
    tokens: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        tokens.append(token)
        return None

    with (
        nothing_left(),
        hub_thread(HubConfig(authorize=authorize)) as hub,
        presence(hub, access_token="one") as alice,
    ):
        frames(alice, until=lambda: alice.is_connected)
        alice.set_access_token("two")
        frames(alice, until=lambda: tokens == ["one", "two"])


def test_who_does_not_read_is_told_what_was_missed(hub: HubThread) -> None:
    alice = PresenceClient(Identity("alice", "Alice"), config(hub), max_queued_events=3)
    with alice, presence(hub, "bob") as bob:
        frames(alice, bob, until=lambda: alice.online_count == bob.online_count == 2)
        for n in range(20):
            bob.send_chat("lobby", str(n))
        bob.update_activity(UserStatus.AWAY)
        frames(alice, bob, until=lambda: UserStatus.AWAY in {user.status for user in alice.online_users})
        first, *rest = alice.events()
        assert isinstance(first, EventsDropped)
        assert first.count >= 18
        assert len(rest) == 3


def test_a_command_that_finds_no_room_is_refused(hub: HubThread) -> None:
    with presence(hub) as alice:
        frames(alice, until=lambda: alice.is_connected)
        pause(hub, True)
        number = 0

        def flood() -> None:
            nonlocal number
            while number < 10_000:
                number += 1
                alice.send_chat("lobby", "x" * 100_000)

        with pytest.raises(LocalProtocolError, match="does not read"):
            flood()
        assert 10 < number < 1000
        pause(hub, False)


def test_a_bug_of_the_core_comes_out_of_the_step(hub: HubThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("bug")

    alice = presence(hub)
    monkeypatch.setattr(alice._core, "receive_data", receive_data)
    alice.connect()
    with pytest.raises(ZeroDivisionError):
        frames(alice, until=lambda: False)
    assert alice.is_closed
    alice.step()
    with pytest.raises(ConnectError) as caught:
        alice.send_poke("bob")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert list(alice.events()) == []


class RememberingLoop:
    """A host whose selector is told of changes only, as Qt's and Tk's is: it steps only when it is due."""

    def __init__(self, client: PresenceClient) -> None:
        self._client = client
        self._registered: tuple[int, int] | None = None

    def run(self, until: Callable[[], Any]) -> None:
        client, deadline = self._client, time.monotonic() + 5
        with selectors.DefaultSelector() as selector:
            while not until():
                assert time.monotonic() < deadline, "it did not come to be so"
                client.step()
                wants = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_write else 0)
                look = (client.fileno(), wants) if client.fileno() >= 0 else None
                if look != self._registered:
                    if self._registered is not None:
                        with suppress(KeyError, OSError):  # it is closed, which is why we are told
                            selector.unregister(self._registered[0])
                    if look is not None:
                        selector.register(*look)
                    self._registered = look
                selector.select(client.next_delay())


@pytest.mark.long
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_host_may_register_a_socket_once(hub: HubThread, host: str) -> None:
    with presence(hub, server_url=hub.url.replace("127.0.0.1", host)) as alice:
        seen, cuts = Seen(alice), 0

        def was_cut_often() -> bool:
            nonlocal cuts
            if len(seen.all(Connected)) > cuts:
                cuts += 1
                hub.cut(hub.connections[0])
            return cuts == 5

        RememberingLoop(alice).run(was_cut_often)


# ---------------------------------------------------------------------------------------------- callbacks


def test_a_callback_gets_the_events(hub: HubThread, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    def tell(event_type: str, data: dict[str, Any]) -> None:
        told.append((event_type, data))
        if event_type == "user_online":
            alice.send_poke("bob")  # commands are allowed
            raise ZeroDivisionError("a bug of theirs")

    alice = PresenceClient(server_url=hub.url, user_id="alice", display_name="Alice")
    alice.on_notification = tell
    with alice:
        frames(alice, until=lambda: told)
        with presence(hub, "bob") as bob:
            seen = Seen(bob)
            frames(alice, bob, until=lambda: seen.all(Poked))
        frames(alice, until=lambda: len(told) == 3)
        assert list(alice.events()) == []
        alice.on_notification = None
        hub.cut(hub.connections[0])
        frames(alice, until=lambda: not alice.is_connected)
        assert [type(event) for event in alice.events()] == [Disconnected]
    assert [event_type for event_type, _ in told] == ["connected", "user_online", "user_offline"]
    assert told[1][1]["display_name"] == "Bob"
    assert "a bug of theirs" in caplog.text


def test_a_mixture_of_both_ways_to_make_one_is_refused(hub: HubThread) -> None:
    with pytest.raises(ConfigError, match="an Identity and a PresenceConfig"):
        PresenceClient(Identity("alice", "Alice"), server_url=hub.url)


# ---------------------------------------------------------------------------------------------- channels


def test_a_phoenix_channel(hub: HubThread) -> None:
    with realtime(hub, hub.socket_url) as client:
        lobby = client.join("room:lobby", {"user_id": "alice", "mood": "good"})
        assert client.join("room:lobby", {"user_id": "alice", "mood": "good"}) is lobby
        assert repr(lobby) == "<Channel 'room:lobby', not joined>"
        assert repr(lobby.joining) == "<Reply, not done>"
        with pytest.raises(LocalProtocolError, match="not arrived yet"):
            lobby.joining.result()
        early = lobby.push("ping", {"n": 1})
        frames(client, until=lambda: lobby.joining.done and early.done)
        assert repr(lobby) == "<Channel 'room:lobby', joined>"
        assert repr(early) == "<Reply, done>"
        assert lobby.joining.error is None
        assert lobby.joining.result() is None
        assert lobby.response == {}
        assert early.result() == {}
        frames(client, until=lambda: lobby.presence)
        assert lobby.presence.latest("alice")["mood"] == "good"
        seen = Seen(lobby)
        hub.broadcast("room:lobby", "news", {"n": 2})
        frames(client, until=lambda: seen.all(ChannelMessage))
        with pytest.raises(LocalProtocolError, match="plain Phoenix"):
            lobby.broadcast("news")
        lobby.leave()
        lobby.leave()
        assert not lobby.is_joined
        with pytest.raises(LocalProtocolError, match="was left"):
            lobby.push("ping")
        again = client.join("room:lobby", {"user_id": "alice"})
        assert again is not lobby
        frames(client, until=lambda: again.is_joined)
        assert Seen(client).kinds() == [SocketConnected]


def test_a_supabase_channel(hub: HubThread) -> None:
    with realtime(hub) as alice, realtime(hub) as bob:
        ours = alice.join("realtime:room", ChannelConfig(presence_key="alice"))
        theirs = bob.join("realtime:room", ACKED)
        seen = Seen(theirs)
        frames(alice, bob, until=lambda: ours.is_joined and theirs.is_joined)
        ours.track({"mood": "good"})
        unheard = ours.broadcast("hello", {"n": 1})
        assert unheard.done  # nobody acknowledges it
        assert unheard.result() is None
        frames(alice, bob, until=lambda: seen.all(Broadcast) and seen.all(PresenceDiffed))
        assert theirs.presence["alice"][0]["mood"] == "good"
        heard = theirs.broadcast("hello", {"n": 2})
        assert not heard.done
        frames(alice, bob, until=lambda: heard.done)
        assert heard.result() == {}
        ours.untrack()
        frames(alice, bob, until=lambda: not theirs.presence)


def test_what_the_server_refuses_has_an_error() -> None:
    def authorize(topic: str, token: str | None) -> str | None:
        return "not for you" if topic == "realtime:private" else None

    with nothing_left(), hub_thread(HubConfig(authorize=authorize)) as hub, realtime(hub) as client:
        private, room = client.join("realtime:private"), client.join("realtime:room")
        wrong = room.push("presence", {"type": "presence", "event": "track", "payload": []})
        frames(client, until=lambda: private.joining.done and wrong.done)
        assert isinstance(private.joining.error, JoinError)
        with pytest.raises(JoinError, match="not for you"):
            private.joining.result()
        assert isinstance(wrong.error, PushError)
        with pytest.raises(PushError) as caught:
            wrong.result()
        assert caught.value.status == "error"
        assert client._core.channels == ("realtime:room",)


def test_channels_come_back(hub: HubThread) -> None:
    with realtime(hub) as client:
        room = client.join("realtime:room", ACKED)
        frames(client, until=lambda: room.is_joined)
        room.track({"mood": "good"})
        frames(client, until=lambda: room.presence)
        hub.cut(hub.connections[0])
        frames(client, until=lambda: not client.is_connected)
        lost = room.push("ping", timeout=0.01)
        unacked = client.join("realtime:other").broadcast("hello", {"n": 1})
        assert unacked.done
        seen = Seen(room)
        frames(client, until=lambda: seen.all(ChannelJoined))
        assert {ChannelDown, ChannelJoined} <= set(seen.kinds())
        assert isinstance(lost.error, PushError)
        assert not seen.all(PushFailed)
        frames(client, until=lambda: room.presence)
        assert Seen(client).kinds() == [SocketConnected, SocketDisconnected, SocketConnected]


def test_the_end_is_an_answer_to_everybody(hub: HubThread) -> None:
    client = realtime(hub)
    client.connect()
    room = client.join("realtime:room")
    frames(client, until=lambda: room.is_joined)
    pause(hub, True)
    push, other = room.push("ping"), client.join("realtime:other")
    client.close()
    assert isinstance(other.joining.error, ConnectError)
    assert push.error is not None
    assert Seen(room).kinds()[-1] is ChannelDown
    room.leave()
    with pytest.raises(ConnectError):
        client.join("realtime:third")
    pause(hub, False)


def test_a_game_at_60_hz_costs_little(hub: HubThread) -> None:
    with presence(hub) as alice, presence(hub, "bob") as bob:
        frames(alice, bob, until=lambda: Seen(alice).all(UserOnline) or alice.online_count == 2)
        begin = time.process_time()
        for _ in range(600):  # ten seconds of it
            alice.step()
        assert time.process_time() - begin < 0.1
