"""Diffs that wait: what is in them, and that who came in between is told the truth all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from hub_client import PHOENIX_V1, Client, World, supabase_join
from presence_proto.endpoint import ConnId
from presence_proto.hub.config import HubConfig
from presence_proto.hub.limits import Allowance
from presence_proto.hub.topic import Ids, Topic
from presence_proto.presence import PresenceMap

if TYPE_CHECKING:
    from presence_proto.hub.topic import Diff, SharedMessage

ROOM = "room:x"
WINDOW = HubConfig(presence_window=1.0)


def come(world: World, name: str | None = None) -> Client:
    client = world.connect()
    client.say("1", "1", ROOM, "phx_join", {} if name is None else {"user_id": name})
    return client


def track(client: Client, **payload: Any) -> str:
    client.say("1", "9", ROOM, "track", payload)
    return str([m for m in client.inbox if m.event == "phx_reply"][-1].payload["response"]["ref"])


def present(client: Client) -> dict[str, Any]:
    """What a client holds that has not been read from."""
    presence = PresenceMap()
    for message in client.inbox:
        if message.event == "presence_state":
            presence.apply_state(message.payload)
        elif message.event == "presence_diff":
            presence.apply_diff(message.payload)
    return dict(presence)


def diffs(client: Client) -> list[Any]:
    return [payload for _, _, _, event, payload in client.take() if event == "presence_diff"]


def test_a_window_makes_one_diff_of_many_changes() -> None:
    world = World(WINDOW)
    observer = come(world)
    for name in "cab":
        come(world, name)
    assert diffs(observer) == []
    assert world.hub.next_deadline() == world.now + 1
    world.advance(0.99)
    assert diffs(observer) == []
    world.advance(0.01)
    (diff,) = diffs(observer)
    assert list(diff["joins"]) == ["c", "a", "b"]
    assert diff["leaves"] == {}
    world.advance(5)
    assert diffs(observer) == []


def test_a_wave_of_joins_is_few_diffs_by_default() -> None:
    world = World(HubConfig())
    clients = [come(world)]
    for number in range(200):
        world.advance(1 / 200)
        clients.append(come(world, f"u{number}"))
        assert len(clients[-1].inbox) == 2, "the reply and the state, at once"
    assert world.hub.waiting == (ROOM,)
    world.advance(1)
    assert world.hub.waiting == ()
    names = {f"u{number}" for number in range(200)}
    for client in clients:
        assert present(client).keys() == names
        assert len(diffs(client)) <= 11


def test_the_state_follows_every_device_of_a_key() -> None:
    world = World()
    first = come(world, "alice")
    assert len(present(come(world))["alice"]) == 1
    second = come(world, "alice")
    assert len(present(come(world))["alice"]) == 2
    first.drop()
    assert len(present(come(world))["alice"]) == 1
    ref = track(second, mood="calm")
    assert [meta["phx_ref"] for meta in present(come(world))["alice"]] == [ref]
    second.drop()
    assert present(come(world)) == {}


def test_a_window_opens_for_a_change_only() -> None:
    world = World(HubConfig(presence_window=1, idle_timeout=60))
    client = come(world, "alice")
    world.advance(1)
    client.say(None, "2", "phoenix", "heartbeat", {})
    assert world.hub.next_deadline() == world.now + 59


def test_the_window_begins_with_its_first_change() -> None:
    world = World(WINDOW)
    observer = come(world)
    world.advance(100 / 3)
    for name in "abcd":
        come(world, name)
        world.advance(0.3)
    assert [list(diff["joins"]) for diff in diffs(observer)] == [["a", "b", "c", "d"]]
    come(world, "e")
    world.advance(1)
    assert [list(diff["joins"]) for diff in diffs(observer)] == [["e"]]


def test_who_came_and_left_appears_nowhere() -> None:
    world = World(WINDOW)
    observer = come(world)
    come(world, "brief").drop()
    world.advance(2)
    assert diffs(observer) == []


def test_a_chain_of_updates_leaves_the_announced_and_the_last() -> None:
    world = World(WINDOW)
    observer, alice = come(world), come(world, "alice")
    world.advance(1)
    (announced,) = diffs(observer)[0]["joins"]["alice"]["metas"]
    refs = [track(alice, n=n) for n in range(3)]
    world.advance(1)
    (diff,) = diffs(observer)
    assert diff == {
        "joins": {"alice": {"metas": [{"phx_ref": refs[2], "phx_ref_prev": refs[1], "n": 2}]}},
        "leaves": {"alice": {"metas": [announced]}},
    }


def test_a_fresh_meta_that_was_updated_is_only_the_last() -> None:
    world = World(WINDOW)
    observer, alice = come(world), come(world, "alice")
    track(alice, n=1)
    world.advance(1)
    (diff,) = diffs(observer)
    assert [meta["n"] for meta in diff["joins"]["alice"]["metas"]] == [1]
    assert diff["leaves"] == {}


def test_a_newcomer_gets_the_truth_of_now() -> None:
    world = World(WINDOW)
    alice = come(world, "alice")
    track(alice, n=1)
    newcomer = come(world)
    assert [meta["n"] for meta in present(newcomer)["alice"]] == [1]
    world.advance(1)
    assert present(newcomer) == world.hub.online(ROOM)


def test_what_a_newcomer_was_shown_is_seen_to_leave() -> None:
    # Alice comes in this window, a newcomer is shown her, she leaves in it. No ghost of her may stay.
    world = World(WINDOW)
    observer, alice = come(world), come(world, "alice")
    newcomer = come(world)
    assert list(present(newcomer)) == ["alice"]
    alice.drop()
    world.advance(1)
    for client in (observer, newcomer):
        assert present(client) == world.hub.online(ROOM) == {}
    assert [list(diff["leaves"]) for diff in diffs(newcomer)] == [["alice"]]


def test_topics_have_windows_of_their_own() -> None:
    world = World(WINDOW)
    observer = world.connect()
    client = world.connect()
    for ref, topic in enumerate(("room:b", "room:a")):
        observer.join(topic, {}, ref=str(ref))
        client.join(topic, {"user_id": "u"}, ref=str(ref))
        world.advance(0.4)
    assert observer.take() == []
    world.advance(0.2)
    assert [message[2] for message in observer.take()] == ["room:b"]
    world.advance(0.4)
    assert [message[2] for message in observer.take()] == ["room:a"]


def test_an_empty_topic_leaves_no_timer() -> None:
    world = World(HubConfig(presence_window=1, idle_timeout=60))
    client = come(world, "u")
    client.say("1", "2", ROOM, "phx_leave", {})
    assert world.hub.topics == ()
    assert world.hub.next_deadline() == world.now + 60
    come(world, "u")
    world.advance(1)
    assert list(world.hub.online(ROOM)) == ["u"]


def test_two_timers_at_the_same_time() -> None:
    # The idle timeout makes a change in the very moment in which the window of its topic ends.
    world = World(HubConfig(presence_window=10, idle_timeout=60))
    gone, observer = come(world, "gone"), come(world)
    world.advance(50)
    come(world, "b")
    observer.say("1", "2", ROOM, "e", {})
    world.advance(10)
    assert gone.closed is not None
    assert [(list(diff["joins"]), list(diff["leaves"])) for diff in diffs(observer)] == [
        (["gone"], []),
        (["b"], ["gone"]),
    ]
    world.advance(10)
    assert diffs(observer) == []


def test_several_diffs_of_one_moment_go_out_in_order() -> None:
    world = World()
    observer, client = world.connect(PHOENIX_V1), world.connect()
    topics = ["room:3", "room:1", "realtime:2"]
    for ref, topic in enumerate(topics):
        observer.join(topic, supabase_join(), ref=str(ref))
        client.join(topic, {"user_id": "u", **supabase_join("u")}, ref=str(ref))
    client.say("2", "9", "realtime:2", "presence", {"event": "track", "payload": {}})
    observer.take()
    client.drop()
    assert [message[2] for message in observer.take()] == topics


@define(eq=False)
class Ears:
    """A member and a listener that speaks no Phoenix at all."""

    conn: ConnId = field(default=ConnId(1))
    heard: list[Any] = field(factory=list)

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        self.heard.append(shared.message.event)

    def on_diff(self, diff: Diff) -> None:
        self.heard.append(([t.key for t in diff.joins], [t.key for t in diff.leaves]))

    def stop(self, reason: str, *, crashed: bool) -> None:
        self.heard.append((reason, crashed))


def test_any_kind_of_member_will_do() -> None:
    waiting: dict[str, Topic] = {}
    topic = Topic("room:x", Ids(), waiting, HubConfig(), Allowance("this hub", 10_000))
    ears, mouth = Ears(), Ears()
    for one in (ears, mouth):
        topic.add(one)
        topic.add_listener(one)
    assert topic.members == (ears, mouth)
    topic.track(mouth, "m", {"a": 1})
    topic.track(ears, "e", {})
    assert waiting == {"room:x": topic}
    topic.flush()
    topic.remove_listener(mouth)
    topic.remove(mouth)
    topic.flush()
    topic.flush()
    assert ears.heard == [(["m", "e"], []), ([], ["m"])]
    assert mouth.heard == [(["m", "e"], [])]
    assert not topic.is_empty
    assert list(topic.online()) == ["e"]
