"""`blocking`: both clients in plain threads, over real sockets against the hub."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from adapters.fakes import Certificates
from adapters.hub_thread import HubThread, hub_thread, nothing_left, pause, until
from presence_adapters import event_queue
from presence_adapters.blocking import (
    Channel,
    ConnectError,
    EventsDropped,
    JoinError,
    PresenceClient,
    PushError,
    RealtimeClient,
)
from presence_proto import (
    ActivityChanged,
    Broadcast,
    ChannelConfig,
    ChannelDown,
    ChannelJoined,
    ChannelMessage,
    ChatMessage,
    Connected,
    Disconnected,
    Error,
    HubConfig,
    Identity,
    LocalProtocolError,
    Poked,
    PresenceConfig,
    PresenceDiffed,
    RealtimeConfig,
    SocketConnected,
    SocketDisconnected,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

E = TypeVar("E")

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


def next_of(one: PresenceClient | RealtimeClient | Channel, kind: type[E]) -> E:
    for event in one.events(timeout=5):
        if isinstance(event, kind):
            return event
    raise AssertionError(f"there was no {kind.__name__}")


class InThread:
    """A call in another thread: its result, or what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as exc:
            self._error = exc

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def result(self, within: float = 5) -> Any:
        self._thread.join(within)
        assert not self._thread.is_alive(), "it did not end"
        if self._error is not None:
            raise self._error
        return self._value


# ---------------------------------------------------------------------------------------------- life


def test_two_people_meet(hub: HubThread) -> None:
    with presence(hub) as alice:
        assert (alice.is_connected, alice.is_stale) == (False, True)
        assert next_of(alice, Connected).online_count == 1
        with presence(hub, "bob") as bob:
            assert next_of(bob, Connected).online_count == 2
            assert next_of(alice, UserOnline).user.user_id == "bob"
            ids = [bob.update_activity(UserStatus.AWAY, "Lunch"), bob.send_poke("alice")]
            ids += [bob.send_invite("Snake"), bob.send_chat("lobby", "hello", reply_to="m1")]
            assert ids == sorted(set(ids))
            chat = next_of(alice, ChatMessage)
            assert (chat.content, chat.reply_to) == ("hello", "m1")
            assert {user.activity for user in alice.online_users} == {None, "Lunch"}
        assert next_of(alice, UserOffline).user.user_id == "bob"
        assert alice.identity == Identity("alice", "Alice")
        assert alice.online_count == 1
    assert [type(event) for event in alice] == [Disconnected]


def test_events_end_when_none_came_in_time(hub: HubThread) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        for timeout in (0.1, 0, -1):
            begin = time.monotonic()
            assert list(alice.events(timeout)) == []
            assert max(0, timeout) <= time.monotonic() - begin < timeout + 1.1
        with presence(hub, "bob") as bob:
            next_of(bob, Connected)
            assert [type(event) for event in alice.events(timeout=0.1)] == [UserOnline]


def test_polling_with_no_timeout_drives(hub: HubThread) -> None:
    with presence(hub) as alice:
        seen: list[Any] = []
        until(lambda: seen.extend(alice.events(timeout=0)) or seen)
        assert isinstance(seen[0], Connected)


def test_a_lost_connection_comes_back(hub: HubThread) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        hub.cut(hub.connections[0], reset=True)
        lost = next_of(alice, Disconnected)
        assert lost.reason == "the connection was lost (connection reset by peer)"
        assert lost.retry_in is not None
        assert next_of(alice, Connected).resumed


def test_a_refusal_for_good_ends_it() -> None:
    with (
        nothing_left(),
        hub_thread(HubConfig(api_keys=frozenset({"right"}))) as hub,
        presence(hub, api_key="wrong-key") as alice,
    ):
        events: list[Any] = []
        with pytest.raises(ConnectError, match="HTTP 401") as refused:
            for event in alice:
                events.append(event)
        assert [type(event) for event in events] == [Disconnected, Error]
        assert "wrong-key" not in repr((events, refused.value))
        late_uses: list[Any] = [lambda: alice.send_poke("bob"), lambda: list(alice), alice.wait_connected]
        for late in late_uses:
            with pytest.raises(ConnectError, match=r"ended \(.*HTTP 401.*\): create a new one") as caught:
                late()
            assert caught.value.__cause__ is refused.value


def test_a_goodbye_waits_and_ends_the_events(hub: HubThread) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        alice.disconnect()
        alice.disconnect()
        assert not hub.connections
        assert [type(event) for event in alice] == [Disconnected]
        with pytest.raises(ConnectError, match=r"ended \(disconnect was called\): create a new one"):
            list(alice)


def test_leaving_while_it_connects_is_quick(hub: HubThread) -> None:
    begin = time.monotonic()
    with presence(hub) as alice:
        pass
    assert time.monotonic() - begin < 0.5
    assert [type(event) for event in alice] == [Disconnected]


def test_a_goodbye_that_nobody_answers_is_bounded(hub: HubThread) -> None:
    with presence(hub, close_timeout=0.1) as alice:
        next_of(alice, Connected)
        pause(hub, True)
        begin = time.monotonic()
    assert 0.09 < time.monotonic() - begin < 1
    pause(hub, False)


def test_it_is_used_with_a_with_block_and_once(hub: HubThread) -> None:
    alice = presence(hub)
    for early in (lambda: alice.send_poke("bob"), lambda: list(alice), alice.drive_in_background):
        with pytest.raises(LocalProtocolError, match="not running"):
            early()
    with alice:
        with pytest.raises(LocalProtocolError, match="only once"):
            alice.__enter__()
        next_of(alice, Connected)
    with pytest.raises(LocalProtocolError, match="only once"):
        alice.__enter__()
    bob = presence(hub, "bob")
    bob.disconnect()
    with pytest.raises(LocalProtocolError, match="only once"):
        bob.__enter__()


def test_tls_is_verified() -> None:
    certificates = Certificates()
    with nothing_left(), hub_thread(ssl_context=certificates.server) as hub:
        alice = PresenceClient(Identity("alice", "Alice"), config(hub), ssl_context=certificates.client)
        with alice:
            next_of(alice, Connected)
        with presence(hub, "mallory") as mallory:
            assert "not trusted" in next_of(mallory, Disconnected).reason


def test_a_slow_consumer_is_told_what_it_missed(hub: HubThread) -> None:
    alice = PresenceClient(Identity("alice", "Alice"), config(hub), max_queued_events=3)
    with alice, presence(hub, "bob") as bob:
        alice.drive_in_background()
        next_of(bob, Connected)
        until(lambda: alice.is_connected)
        for n in range(20):
            bob.send_chat("lobby", str(n))
        bob.update_activity(UserStatus.AWAY)
        until(lambda: UserStatus.AWAY in {user.status for user in alice.online_users})
        first, *rest = alice.events(timeout=0)
        assert isinstance(first, EventsDropped)
        assert first.count >= 18
        assert len(rest) == 3


@pytest.mark.long
@pytest.mark.parametrize("deflate", [False, True])
def test_large_broadcasts_that_nobody_reads_do_not_pile_up(
    deflate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MAX_QUEUED_BYTES", 5_000_000)
    with HubThread(HubConfig(deflate=deflate)) as hub, realtime(hub, hub.url + "/realtime/v1") as client:
        room = client.join("realtime:room", ACKED)
        for n in range(30):
            room.broadcast(str(n), "x" * 1_000_000)
        dropped, *rest = room.events(timeout=0)
        assert isinstance(dropped, EventsDropped)
        kept = [getattr(event, "event", None) for event in rest]
        assert kept == [str(n) for n in range(30 - len(kept), 30)]
        assert len(kept) in {4, 5}
        assert dropped.count >= 30 - len(kept)


# ---------------------------------------------------------------------------------------------- threads


@pytest.mark.long
def test_waiting_costs_nothing(hub: HubThread) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        pause(hub, True)  # the hub is in this process, too
        time.sleep(0.05)
        begin = time.process_time()
        assert list(alice.events(timeout=1)) == []
        assert time.process_time() - begin < 0.01
        pause(hub, False)


def test_commands_of_other_threads_are_carried_out_at_once(hub: HubThread) -> None:
    with presence(hub) as alice, presence(hub, "bob") as bob:
        next_of(bob, Connected)
        hearing = InThread(lambda: next_of(bob, Poked))
        next_of(alice, Connected)
        waiting = InThread(lambda: next_of(alice, ChatMessage))
        time.sleep(0.05)
        begin = time.monotonic()
        alice.send_poke("bob")
        assert hearing.result() == Poked("alice", "Alice")
        assert time.monotonic() - begin < 0.5
        bob.send_chat("lobby", "hello")
        waiting.result()


def test_many_threads_may_wait_and_give_commands(hub: HubThread) -> None:
    with presence(hub) as alice, presence(hub, "bob", command_timeout=5.0) as bob:
        next_of(alice, Connected)
        next_of(bob, Connected)
        heard: list[str] = []

        def hear() -> None:
            for event in alice.events():
                if isinstance(event, ChatMessage):
                    heard.append(event.content)

        def say(name: str) -> None:
            for n in range(25):
                bob.send_chat("lobby", f"{name} {n}")

        readers = [InThread(hear) for _ in range(4)]
        bob.drive_in_background()
        speakers = [InThread(lambda name=f"thread {n}": say(name)) for n in range(4)]
        for speaker in speakers:
            speaker.result()
        until(lambda: len(heard) == 100)
        assert set(heard) == {f"thread {n} {m}" for n in range(4) for m in range(25)}
        alice.close()
        for reader in readers:
            reader.result()


@pytest.mark.parametrize("how", ["close", "disconnect"])
def test_the_end_made_by_another_thread_ends_the_waiting(hub: HubThread, how: str) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        waiting = [InThread(lambda: list(alice)) for _ in range(3)]
        time.sleep(0.05)
        begin = time.monotonic()
        getattr(alice, how)()
        found = [event for one in waiting for event in one.result()]
        assert time.monotonic() - begin < 0.5
        assert [type(event) for event in found] == [Disconnected]


@pytest.mark.long
def test_200_ends_at_random_points_leave_nothing_behind() -> None:
    rng = random.Random(5)
    certificates = Certificates()

    def live(alice: PresenceClient, background: bool) -> None:
        with alice, suppress(ConnectError):  # which is what commands raise after the end
            if background:
                alice.drive_in_background()
            for event in alice.events():
                if isinstance(event, Connected):
                    alice.update_activity(UserStatus.AWAY)
                    alice.send_chat("lobby", "hello")

    with nothing_left(), hub_thread() as plain, hub_thread(ssl_context=certificates.server) as tls:
        for n in range(200):
            where = tls if n % 3 == 0 else plain
            url = where.url.replace("127.0.0.1", "localhost") if n % 10 == 1 else where.url
            settings = config(where, server_url=url)
            one = PresenceClient(Identity(f"user-{n}", "U"), settings, ssl_context=certificates.client)
            living = InThread(lambda one=one, background=n % 5 == 0: live(one, background))
            until(lambda one=one: one._driver.is_running)
            time.sleep(rng.choice([0, 0, 0.0005, 0.002, 0.005, 0.01]))
            rng.choice([one.close, one.disconnect])()
            living.result()
        for hub in (plain, tls):
            until(lambda hub=hub: not hub.connections)


def test_in_the_background_it_lives_while_nobody_waits(hub: HubThread) -> None:
    with presence(hub, heartbeat_interval=0.05, heartbeat_timeout=0.05) as alice:
        alice.drive_in_background()
        alice.drive_in_background()
        until(lambda: alice.is_connected)
        hub.cut(hub.connections[0])
        until(lambda: not alice.is_connected)
        until(lambda: alice.is_connected)
        time.sleep(0.2)  # some heartbeats
        assert [type(event) for event in alice.events(timeout=0)] == [Connected, Disconnected, Connected]


def test_a_command_waits_for_room(hub: HubThread) -> None:
    with presence(hub) as alice:
        next_of(alice, Connected)
        pause(hub, True)

        def flood() -> int:
            for _ in range(60):
                alice.send_chat("lobby", "x" * 200_000)
            return 60

        flooding = InThread(flood)
        time.sleep(0.3)
        assert flooding.is_running
        pause(hub, False)
        assert flooding.result() == 60


# ---------------------------------------------------------------------------------------------- Ctrl-C


def interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_an_interrupt_ends_the_wait_and_says_goodbye(hub: HubThread) -> None:
    with presence(hub, close_timeout=60.0) as alice:
        next_of(alice, Connected)
        pause(hub, True)  # nobody answers the goodbye
        timer = interrupt_after(0.1)
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(alice)
        assert time.monotonic() - begin < 1
        timer.join()
        pause(hub, False)
        alice.send_chat("lobby", "still alive")  # it was the wait that was interrupted, not the client
        assert alice.is_connected


def test_an_interrupted_body_leaves_at_once(hub: HubThread) -> None:
    timers = []

    def live() -> None:
        with presence(hub, close_timeout=60.0) as alice:
            next_of(alice, Connected)
            alice.drive_in_background()
            pause(hub, True)
            timers.append(interrupt_after(0.1))
            list(alice)

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        live()
    assert time.monotonic() - begin < 2
    pause(hub, False)
    timers[0].join()
    until(lambda: not hub.connections)


def interrupt_at(n: int) -> Callable[..., Any]:
    """A trace function: Ctrl-C at the `n`th line that runs in a wait."""
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if (
            frame.f_code.co_name not in ("wait", "_sleep")
            or "presence_adapters" not in frame.f_code.co_filename
        ):
            return None
        if event == "line" and next(lines) == n:
            raise KeyboardInterrupt
        return trace

    return trace


def test_an_interrupt_at_any_line_of_a_wait_is_an_interrupt_and_no_more(hub: HubThread) -> None:
    def live(n: int) -> None:
        with presence(hub) as alice:
            next_of(alice, Connected)
            tracer = sys.gettrace()
            sys.settrace(interrupt_at(n))
            try:
                list(alice.events(timeout=0.001))
            finally:
                sys.settrace(tracer)

    for n in itertools.count(1):
        try:
            live(n)
        except KeyboardInterrupt:
            continue
        break  # it has fewer lines
    assert n > 20


def test_an_interrupt_while_the_background_begins(hub: HubThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    def live() -> None:
        with presence(hub) as alice:
            monkeypatch.setattr(threading.Thread, "start", start)
            alice.drive_in_background()

    with pytest.raises(KeyboardInterrupt):
        live()
    monkeypatch.undo()


# ---------------------------------------------------------------------------------------------- bugs


def break_core(one: PresenceClient | RealtimeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(one._core, "receive_data", receive_data)


@pytest.mark.parametrize("background", [False, True])
def test_a_bug_of_the_core_reaches_the_reader(
    hub: HubThread, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with presence(hub) as alice:
        break_core(alice, monkeypatch)
        if background:
            alice.drive_in_background()
        with pytest.raises(ZeroDivisionError):
            next_of(alice, Connected)
        for late in (lambda: list(alice), lambda: alice.send_poke("bob")):
            with pytest.raises(ConnectError, match="failed with ZeroDivisionError") as caught:
                late()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)


def fail(one: PresenceClient, monkeypatch: pytest.MonkeyPatch, then: Exception | None = None) -> None:
    """A body that reads no events, until the core has failed."""
    with one:
        break_core(one, monkeypatch)
        one.drive_in_background()
        until(lambda: one._driver.ended)
        if then is not None:
            raise then


def test_a_bug_that_nobody_has_seen_is_raised_at_the_end(
    hub: HubThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(presence(hub), monkeypatch)


def test_a_bug_does_not_hide_the_callers_own_error(
    hub: HubThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyError):
        fail(presence(hub), monkeypatch, then=KeyError())
    assert "ZeroDivisionError: bug" in caplog.text


# ---------------------------------------------------------------------------------------------- callbacks


def test_run_tells_the_callback_and_survives_its_bugs(
    hub: HubThread, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def tell(event_type: str, data: dict[str, Any]) -> None:
        told.append(event_type)
        if event_type == "poke":
            alice.update_activity(UserStatus.AWAY)
            raise ZeroDivisionError("a bug of theirs")
        if event_type == "chat_message":
            assert data["content"] == "stop"
            alice.disconnect()

    alice = PresenceClient(server_url=hub.url, user_id="alice", display_name="Alice")
    alice.on_notification = tell
    running = InThread(alice.run)
    until(lambda: told)
    with presence(hub, "bob") as bob:
        next_of(bob, Connected)
        bob.send_poke("alice")
        next_of(bob, ActivityChanged)
        bob.send_chat("lobby", "stop")
        next_of(bob, UserOffline)
    running.result()
    assert told == ["connected", "user_online", "poke", "chat_message", "disconnected"]
    assert "a bug of theirs" in caplog.text


def test_run_inside_of_a_with_block_and_without_a_callback(hub: HubThread) -> None:
    with presence(hub) as alice:
        running = InThread(alice.run)
        until(lambda: alice.is_connected)
        alice.close()
        running.result()
    with pytest.raises(ConnectError, match="ended"):
        list(alice)


# ---------------------------------------------------------------------------------------------- channels


def test_a_phoenix_channel(hub: HubThread) -> None:
    with realtime(hub, hub.socket_url) as client:
        lobby = client.join("room:lobby", {"user_id": "alice", "mood": "good"})
        assert client.join("room:lobby", {"user_id": "alice", "mood": "good"}) is lobby
        assert repr(lobby) == "<Channel 'room:lobby', joined>"
        assert lobby.response == {}
        assert lobby.push("ping", {"n": 1}) == {}
        assert lobby.presence["alice"][0]["mood"] == "good"
        hub.broadcast("room:lobby", "news", {"n": 2})
        assert next_of(lobby, ChannelMessage).payload == {"n": 2}
        lobby.leave()
        lobby.leave()
        assert list(lobby) == []
        assert list(lobby.presence) == ["alice"]
        with pytest.raises(LocalProtocolError, match="was left"):
            lobby.push("ping")
        assert [type(event) for event in client.events(timeout=0)] == [SocketConnected]


def test_a_supabase_channel(hub: HubThread) -> None:
    with realtime(hub) as alice, realtime(hub) as bob:
        ours = alice.join("realtime:room", ChannelConfig(presence_key="alice"))
        theirs = bob.join("realtime:room", ACKED)
        ours.track({"mood": "good"})
        next_of(theirs, PresenceDiffed)
        assert theirs.presence["alice"][0]["mood"] == "good"
        ours.broadcast("hello", {"n": 1})
        assert next_of(theirs, Broadcast).payload == {"n": 1}
        theirs.broadcast("hello", {"n": 2})
        assert next_of(ours, Broadcast).payload == {"n": 2}
        ours.untrack()
        next_of(theirs, PresenceDiffed)
        assert theirs.presence == {}
        with pytest.raises(PushError) as caught:
            theirs.push("presence", {"type": "presence", "event": "track", "payload": []})
        assert caught.value.status == "error"


def test_a_channel_comes_back(hub: HubThread) -> None:
    with realtime(hub) as client:
        room = client.join("realtime:room", ACKED)
        hub.cut(hub.connections[0])
        next_of(room, ChannelDown)
        assert not room.is_joined
        next_of(room, ChannelJoined)
        assert room.is_joined
        assert [type(event) for event in client.events(timeout=0)] == [
            SocketConnected,
            SocketDisconnected,
            SocketConnected,
        ]


def test_a_join_may_be_refused_or_take_too_long() -> None:
    def authorize(topic: str, token: str | None) -> str | None:
        return "not for you" if topic == "realtime:private" else None

    with nothing_left(), hub_thread(HubConfig(authorize=authorize)) as hub, realtime(hub) as client:
        with pytest.raises(JoinError, match="not for you"):
            client.join("realtime:private")
        pause(hub, True)
        with pytest.raises(JoinError, match=r"no answer within 0\.05 s"):
            client.join("realtime:room", timeout=0.05)
        pause(hub, False)
        assert client.join("realtime:room").is_joined
        assert client._core.channels == ("realtime:room",)


def test_an_interrupted_join_leaves_the_topic(hub: HubThread) -> None:
    with realtime(hub) as client:
        client.join("realtime:other")
        pause(hub, True)
        timer = interrupt_after(0.1)
        with pytest.raises(KeyboardInterrupt):
            client.join("realtime:room")
        timer.join()
        pause(hub, False)
        client.drive_in_background()
        until(lambda: client._core.channels == ("realtime:other",))


def test_threads_share_a_connection(hub: HubThread) -> None:
    with realtime(hub) as client:
        joining = [InThread(lambda n=n: client.join(f"realtime:{n % 3}", ACKED)) for n in range(6)]
        channels = [one.result() for one in joining]
        assert len(set(channels)) == 3
        pushing = [InThread(lambda one=one: one.broadcast("hello", {"n": 1})) for one in channels * 3]
        for one in pushing:
            one.result()
        for one in set(channels):
            assert len(list(one.events(timeout=0.05))) >= 6


def test_the_end_is_told_to_everybody_who_waits(hub: HubThread) -> None:
    with realtime(hub) as client:
        room = client.join("realtime:room")
        pause(hub, True)
        joining = InThread(lambda: client.join("realtime:other"))
        pushing = InThread(lambda: room.push("ping"))
        reading = InThread(lambda: list(room))
        time.sleep(0.1)
        leaving = InThread(room.leave)
        time.sleep(0.1)
        client.close()
        with pytest.raises(ConnectError):
            joining.result()
        with pytest.raises((ConnectError, PushError)):
            pushing.result()
        leaving.result()
        reading.result()
        with pytest.raises(ConnectError):
            client.join("realtime:third")
        pause(hub, False)
