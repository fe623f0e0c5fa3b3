"""However deeply JSON from the network nests, and however little stack is left: nothing raises, and the
result is the same. Nesting is bounded by `max_nesting`, never by the interpreter.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import times
from hub_client import World, supabase_join
from jarvis_client import CONFIG, jarvis
from jarvis_rig import JarvisRig, user
from presence_proto.errors import LocalProtocolError
from presence_proto.events import ProtocolViolation
from presence_rig import PresenceRig, entry, meta
from rig import online
from stack_depth import at_stack_depth, stack_depth

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = "realtime:room"
DEPTHS = (5, 94, 95, 96, 97, 98, 99, 101, 400, 600, 970, 983, 1000)
STACK = 350
"""Frames that a call may need: those of a message of 100 levels, and our own."""


def deep(depth: int, kind: str) -> str:
    """JSON of so many levels."""
    if kind == "objects":
        return '{"]\\"[":' * depth + "1" + "}" * depth
    if kind == "cut off":
        return "[" * depth
    return ('[0,"]\\\\",' if kind == "items" else "[") * depth + "1" + "]" * depth


def anywhere(call: Callable[[], Any]) -> Any:
    """The result of a call that must be the same wherever it is made from, and whatever limit Python has."""
    limit = sys.getrecursionlimit()
    results = [call()]
    try:
        for recursion_limit, left in ((limit, 0), (limit, 1), (limit, 50), (limit + 1500, 0)):
            sys.setrecursionlimit(recursion_limit)
            results.append(at_stack_depth(recursion_limit - stack_depth() - STACK - left, call))
    finally:
        sys.setrecursionlimit(limit)
    for other in results[1:]:
        assert other == results[0]
    return results[0]


def put(template: str, *values: object) -> str:
    """The template with the values in place of its `@`s."""
    for value in values:
        template = template.replace("@", str(value), 1)
    return template


def ann(number: int, nested: str) -> str:
    """The entry of a user with a meta that nests deeply."""
    return put('"ann":{"metas":[{"phx_ref":"a@","x":@}]}', number, nested)


BO, CY = '"bo":{"metas":[{"phx_ref":"b"}]}', '"cy":{"metas":1}'


def presence(event: str, payload: str, *values: object) -> str:
    return f'[null,null,"{ROOM}","presence_{event}",{put(payload, *values)}]'


def messages(nested: str) -> list[list[str]]:
    """What a server may say after the join, in V2."""
    state = presence("state", "{@,@}", ann(1, nested), BO)
    second = presence("diff", '{"joins":{@,@},"leaves":{}}', ann(2, nested), BO)
    gone = presence("diff", '{"joins":{},"leaves":{@}}', ann(1, nested))
    replaced = presence("diff", '{"joins":{@},"leaves":{@}}', ann(3, nested), ann(1, nested))
    bad = presence("diff", '{"joins":{@,@},"leaves":{}}', CY, ann(4, nested))
    more = presence("diff", '{"joins":{@},"leaves":{},"more":@}', BO, nested)
    extra = presence("diff", '{"joins":{"di":{"metas":[{"phx_ref":"d"}],"x":@}},"leaves":{}}', nested)
    said = put('[null,null,"@","broadcast",{"type":"broadcast","event":"e","payload":@}]', ROOM, nested)
    sixth = put('[null,null,"@","news",{},@]', ROOM, nested)
    echo = put('["other",null,"@","presence_diff",{"joins":{@},"leaves":{}}]', ROOM, ann(6, nested))
    nobodys = put('[null,null,"realtime:other","presence_state",{@}]', ann(7, nested))
    answered = put('[null,"77","phoenix","phx_reply",{"status":"error","response":@}]', nested)
    refs = put('[@,null,"@","presence_state",{}]', nested, ROOM)
    return [
        [state, second, gone, state, said],
        [state, replaced, second, second, gone],
        [second, state, bad, more, extra],
        [echo, nobodys, state, answered, sixth, refs, said],
    ]


def in_v1(text: str) -> str:
    """The same message in V1, if that has a form for it."""
    head, _, rest = text[:-1].partition(f'"{ROOM}",')
    event, _, payload = rest.partition(",")
    if not head.startswith("[null,null") or event == '"news"':
        return text
    return put('{"topic":"@","event":@,"ref":null,"payload":@}', ROOM, event, payload)


def told(texts: list[str], vsn: str) -> Any:
    """What a realtime client makes of it, and whom it holds then."""
    rig = online(vsn=vsn)
    rig.join(ROOM)
    rig.take()
    for text in texts:
        rig.say_text(in_v1(text) if vsn == "1.0.0" else text)
    return rig.take(), dict(rig.client.presence(ROOM))


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_the_meta_of_one_user_that_nests_too_deeply_keeps_nobody_else_out(vsn: str) -> None:
    for depth, kind in product((101, 1000), ("lists", "objects", "items")):
        for texts in messages(deep(depth, kind)):
            events, held = told(texts, vsn)
            assert any(isinstance(one, ProtocolViolation) and "nested" in one.reason for one in events)
            assert "bo" in held


@pytest.mark.long
@pytest.mark.parametrize("kind", ["lists", "objects", "items", "cut off"])
@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_client_at_any_stack_depth(vsn: str, kind: str) -> None:
    for depth in DEPTHS:
        for texts in messages(deep(depth, kind)):
            events, held = anywhere(partial(told, texts, vsn))
            too_deep = [
                one for one in events if isinstance(one, ProtocolViolation) and "nested" in one.reason
            ]
            if kind != "cut off":
                assert "bo" in held, "one user's meta keeps nobody else out"
            if depth >= 101:
                assert too_deep
            if depth < 90:
                assert not too_deep


@pytest.mark.long
@pytest.mark.parametrize("kind", ["lists", "objects", "items", "cut off"])
def test_a_client_and_much_deeper_json(kind: str) -> None:
    for texts in messages(deep(20_000, kind)):
        for text in texts:
            events, _ = told([text], "2.0.0")
            assert len(events) < 4


@pytest.mark.parametrize(
    ("event", "template", "around"), [("state", "{@}", 5), ("diff", '{"joins":{@},"leaves":{}}', 6)]
)
@given(st.integers(-2, 2), st.sampled_from(["lists", "objects"]), st.integers(20, 250))
@times(0.4)
def test_the_limit_is_exact(
    event: str, template: str, around: int, more: int, kind: str, max_nesting: int
) -> None:
    """A message of so many levels is taken. Of one with more, `null` stands for what lies deeper."""
    depth = max_nesting - around + more
    rig = online(max_nesting=max_nesting)
    rig.join(ROOM, state={})
    rig.take()
    rig.say_text(presence(event, template, ann(1, deep(depth, kind))))
    [*violations, _] = rig.take()
    [held] = rig.client.presence(ROOM)["ann"]
    levels, value = 0, held["x"]
    while isinstance(value, (list, dict)) and value:
        levels, value = levels + 1, next(iter(value.values() if isinstance(value, dict) else value))
    if more <= 0:
        assert (violations, held["x"]) == ([], json.loads(deep(depth, kind)))
    else:
        [violation] = violations
        assert f"nested more than {max_nesting} levels deep" in violation.reason
        assert (levels, value) == (max_nesting - around, None)


@pytest.mark.long
def test_a_presence_client_at_any_stack_depth() -> None:
    def story(depth: int) -> Any:
        rig = PresenceRig()
        rig.enter({"me": entry("Me", meta("1"))})
        for texts in messages(deep(depth, "lists")):
            for text in texts:
                rig.say_text(text.replace(ROOM, "realtime:jarvis-presence"))
        return rig.take(), rig.client.online_users

    for depth in DEPTHS:
        anywhere(partial(story, depth))


def test_a_jarvis_client_at_any_stack_depth() -> None:
    def story(depth: int) -> Any:
        rig = JarvisRig()
        rig.enter(user("bo"))
        nested = deep(depth, "objects")
        texts = [
            put('{"type":"activity_changed","user_id":"bo","x":@}', nested),
            put('{"type":"activity_changed","user_id":"bo","x":@}', nested),
            put('{"type":"user_online","user_id":"cy","display_name":"Cy","x":@}', nested),
            put('{"type":"welcome","users":[{"user_id":"bo","x":@},{"user_id":"di","x":1}]}', nested),
            put('{"type":"poke","user_id":"bo","x":@}', nested),
            put('{"x":@,"type":"error"}', nested),
            nested,
        ]
        return [rig.tell_text(text) for text in texts], rig.client.online_users

    for depth in DEPTHS:
        _, users = anywhere(partial(story, depth))
        assert {one.user_id for one in users} == {"me", "bo", "di"}


def test_a_hub_at_any_stack_depth() -> None:
    def story(depth: int) -> Any:
        world = World(CONFIG)
        nested, heard = deep(depth, "objects"), []
        other = world.connect("/realtime/v1/websocket?vsn=2.0.0")
        other.join(ROOM, supabase_join("bo"))
        ann = jarvis(world, "ann")
        for text in (
            f'["1","1","{ROOM}","phx_join",{{"config":{{"presence":{{"key":"k"}}}},"x":{nested}}}]',
            f'["1","2","{ROOM}","presence",{{"event":"track","payload":{{"x":{nested}}}}}]',
            f'["1","3","{ROOM}","presence",{{"event":"track","payload":{{"x":{nested}}}}}]',
            f'["1","4","{ROOM}","broadcast",{{"event":"e","payload":{nested}}}]',
            f'["1","1","room:x","phx_join",{{"user_id":"u","x":{nested}}}]',
            nested,
        ):
            client = world.connect("/realtime/v1/websocket?vsn=2.0.0")
            client.join(ROOM, supabase_join("cy"))
            client.text(text)
            world.advance(1.0)
            heard += [client.take(), client.closed]
        ann.text(put('{"type":"activity_update","status":"idle","metadata":@}', nested))
        world.advance(1.0)
        return heard, other.take(), ann.take(), world.hub.online(ROOM)

    for depth in (6, 90, 94, 95, 96, 983):
        anywhere(partial(story, depth))


def levels(depth: int) -> Any:
    return {"x": levels(depth - 1)} if depth else 1


COMMANDS: list[Callable[[Any, Any, float], Any]] = [
    lambda client, payload, now: client.track(ROOM, payload, now=now),
    lambda client, payload, now: client.push(ROOM, "e", payload, now=now),
    lambda client, payload, now: client.broadcast(ROOM, "e", payload, now=now),
    lambda client, payload, now: client.join("room:other", payload, now=now),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_payload_of_ours_may_have_ten_levels_less(command: Callable[[Any, Any, float], Any]) -> None:
    for config, limit in (({}, 90), ({"max_nesting": 40}, 30)):
        rig = online(**config)
        rig.join(ROOM)
        command(rig.client, levels(limit), rig.now)
        with pytest.raises(LocalProtocolError, match="payload is not JSON-serializable: nested more than"):
            command(rig.client, levels(limit + 1), rig.now)


@pytest.mark.parametrize("event", ["presence", "broadcast"])
def test_what_a_client_may_send_all_others_can_read(event: str) -> None:
    world, payload = World(), levels(90)
    clients = [world.connect(f"/realtime/v1/websocket?vsn={vsn}") for vsn in ("1.0.0", "2.0.0")]
    for client in clients:
        client.join(ROOM, supabase_join("key", echo=True))
        client.take()
    clients[1].say("1", "2", ROOM, event, {"type": event, "event": "track", "payload": payload})
    assert clients[1].closed is None
    for client in clients:
        assert any(json.dumps(payload)[1:-1] in json.dumps(message) for message in client.take())
