"""Which protocol a `PresenceConfig` means, and what a client says that speaks the wrong one to a server."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from msgspec.structs import replace

from jarvis_rig import JarvisRig
from lan import Host, Lan
from presence_proto.config import Identity, PresenceConfig
from presence_proto.errors import ConfigError
from presence_proto.events import (
    ActivityChanged,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    InviteSent,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.hub.config import HubConfig
from presence_proto.presence_client import PresenceClient

# ------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    "url",
    [
        "ws://host:8790",
        "ws://host:8790/",
        "ws://host:8790//",
        "wss://host:8790",
        "http://host:8790?room=1",
        "ws://[::1]:8790/?room=1",
    ],
)
def test_its_own_port_without_a_path_is_jarvis(url: str) -> None:
    assert PresenceConfig(server_url=url).speaks_jarvis
    assert not PresenceConfig(server_url=url, protocol="phoenix").speaks_jarvis


@pytest.mark.parametrize(
    "url",
    [
        "ws://host",
        "ws://host:4000",
        "ws://host:8790/socket",
        "ws://host:8790/realtime/v1/websocket",
        "ws://host:8790/x",
        "ws://host:18790",
        "ws://host/8790",
        "ws://host:4000?port=8790",
    ],
)
def test_anything_else_is_phoenix_unless_it_says_jarvis(url: str) -> None:
    assert not PresenceConfig(server_url=url).speaks_jarvis
    assert PresenceConfig(server_url=url, protocol="jarvis").speaks_jarvis


def test_a_supabase_project_is_phoenix() -> None:
    assert not PresenceConfig(project_ref="abc").speaks_jarvis
    assert not PresenceConfig(project_ref="abc", protocol="phoenix").speaks_jarvis
    with pytest.raises(ConfigError, match="protocol 'jarvis' needs a server_url"):
        PresenceConfig(project_ref="abc", protocol="jarvis")


@pytest.mark.parametrize("protocol", ["", "Jarvis", "json", 1, True, b"jarvis", ["jarvis"]])
def test_another_protocol_is_refused(protocol: Any) -> None:
    with pytest.raises(ConfigError, match="protocol must be 'phoenix', 'jarvis' or None"):
        PresenceConfig(server_url="ws://host", protocol=protocol)


@pytest.mark.parametrize("url", ["ws://host:x", "ws://[::1:8790", "ws://host:99999", "ftp://host:8790", 8790])
@pytest.mark.parametrize("protocol", [None, "jarvis", "phoenix"])
def test_what_is_no_url_is_refused_whatever_the_wire(url: Any, protocol: Any) -> None:
    with pytest.raises(ConfigError, match="server_url"):
        PresenceConfig(server_url=url, protocol=protocol)


# ------------------------------------------------------------------------------------ the URL


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://host:8790", "/"),
        ("ws://host", "/"),
        ("ws://host/jarvis", "/jarvis"),
        ("ws://host/jarvis/", "/jarvis/"),
        ("ws://host/a/websocket", "/a/websocket"),
        ("ws://host/r%C3%A4ume/ä b?x=ö", "/r%C3%A4ume/%C3%A4%20b?x=%C3%B6"),
        ("ws://host/x?room=1&empty=", "/x?room=1&empty="),
        ("ws://host?vsn=7", "/?vsn=7"),
    ],
)
def test_it_is_taken_as_it_is(url: str, target: str) -> None:
    config = PresenceConfig(server_url=url, protocol="jarvis")
    assert config.address().target == target
    rig = JarvisRig(server_url=url, protocol="jarvis")
    rig.connect()
    assert rig.requests[0].target == target


def test_keys_and_tokens_are_parameters_as_configured() -> None:
    config = PresenceConfig(
        server_url="ws://host/x?a=1", protocol="jarvis", api_key="k y", params={"b": "2"}, token_param="jwt"
    )
    assert config.address("t").target == "/x?a=1&b=2&apikey=k+y&jwt=t"
    config = evolve(config, token_param="token", token_in="none")
    assert config.address("t").target == "/x?a=1&b=2&apikey=k+y"


def test_our_own_token_is_the_one_of_the_url() -> None:
    rig = JarvisRig(access_token="config's", identity=Identity("me", "Me", access_token="mine"))
    rig.connect()
    assert rig.requests[0].target == "/?token=mine"
    for secret in ("config's", "mine"):
        assert secret not in repr(rig.client.identity) + repr(rig.opens) + str(rig.received)


def test_headers_and_subprotocols_are_sent() -> None:
    rig = JarvisRig(headers={"X-Room": "one"}, subprotocols=("json",))
    rig.connect()
    assert dict(rig.requests[0].headers)["x-room"] == "one"
    assert rig.requests[0].subprotocols == ("json",)


@pytest.mark.parametrize(("url", "port", "tls"), [("wss://h:8790", 8790, True), ("ws://h", 80, False)])
def test_where_it_leads(url: str, port: int, tls: bool) -> None:
    rig = JarvisRig(server_url=url, protocol="jarvis")
    rig.connect()
    assert (rig.opens[0].host, rig.opens[0].port, rig.opens[0].tls) == ("h", port, tls)


def test_trailing_slashes_of_phoenix_urls_mean_nothing() -> None:
    for url in ("ws://h:1/socket", "ws://h:1/socket/", "ws://h:1/socket/websocket/"):
        assert PresenceConfig(server_url=url).address().target == "/socket/websocket?vsn=2.0.0"
    assert PresenceConfig(server_url="ws://h:1//").address().target == "/realtime/v1/websocket?vsn=2.0.0"


# ------------------------------------------------------------------------------------ the wrong server


def told(host: Host) -> set[str]:
    """What the application has been told, in words."""
    assert not host.client.is_connected
    return {
        event.message if isinstance(event, Error) else event.reason
        for event in host.take()
        if isinstance(event, (Error, Disconnected, CommandFailed))
    }


@pytest.mark.parametrize(
    ("vsn", "wrong"),
    [
        ("1.0.0", "a V1 message is malformed: it has no topic"),
        ("2.0.0", "a V2 message is malformed: it must be an array, not an object"),
    ],
)
def test_phoenix_at_a_jarvis_server(vsn: str, wrong: str) -> None:
    lan = Lan(HubConfig(protocol="jarvis"))
    host = lan.join("ann", "ws://hub", vsn=vsn)
    host.do("send_poke", "bob")
    lan.advance(40.0)
    assert told(host) > {wrong, "no reply within 10 s", "not joined in time"}


def test_jarvis_at_a_phoenix_server() -> None:
    lan = Lan(HubConfig(protocol="phoenix"))
    host = lan.join("ann", "ws://hub:8790")
    assert told(host) == {"the server refused the connection: HTTP 404"}
    assert host.client.is_closed


def test_jarvis_at_a_phoenix_socket() -> None:
    lan = Lan(HubConfig(presence_window=0))
    host = lan.join("ann", "ws://hub/socket/websocket", protocol="jarvis")
    host.do("send_poke", "bob")
    lan.advance(40.0)
    closed = "the server closed the connection with code 1011: malformed message"
    assert told(host) == {closed, "not delivered in time"}
    assert host.opens == 6  # at 0, 1, 3, 7, 15 and 31 seconds


def test_jarvis_at_a_supabase_socket_which_passes_it_over() -> None:
    lan = Lan(HubConfig(presence_window=0))
    host = lan.join("ann", "ws://hub/realtime/v1/websocket?vsn=2.0.0", protocol="jarvis")
    host.do("send_poke", "bob")
    lan.advance(40.0)
    silence = "no welcome within 10 s: the server does not let us in, or does not speak Jarvis JSON"
    assert told(host) == {silence, "not delivered in time"}


def test_jarvis_without_the_key_that_the_hub_wants() -> None:
    lan = Lan(HubConfig(api_keys=["right"]))
    assert told(lan.join("ann", "ws://hub:8790")) == {
        'the server refused the connection: HTTP 401 {"error":"API key is missing"}'
    }
    assert told(lan.join("ann", "ws://hub:8790", api_key="wrong")) == {
        'the server refused the connection: HTTP 401 {"error":"API key is invalid"}'
    }
    assert lan.join("ann", "ws://hub:8790", api_key="right").client.is_connected


def test_jarvis_with_a_token_that_the_hub_does_not_like() -> None:
    """The refusal is told, and tried again; another token of ours is used then."""
    asked: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append(token)
        return None if token == "new" else "token expired"

    lan = Lan(HubConfig(authorize=authorize))
    host = lan.join("ann", "ws://hub:8790", access_token="old")
    assert told(host) == {"the server says: token expired"}
    host.do("set_access_token", "new")
    lan.advance(10.0)
    [reason] = told(host)
    assert reason.startswith("no welcome within 10 s")
    lan.advance(1.0)
    assert host.client.is_connected
    assert asked == ["old", "new"]


# ------------------------------------------------------------------------------------ the right one


def test_both_of_our_protocols_in_one_room() -> None:
    """What one client does the other sees, whichever of them speaks which protocol."""
    for jarvis, phoenix in [("ann", "bob"), ("bob", "ann")]:
        lan = Lan(HubConfig(offline_grace=3.0, presence_window=0))
        urls = {jarvis: "ws://hub:8790", phoenix: "ws://hub"}
        ann, bob = (lan.join(user_id, urls[user_id]) for user_id in ("ann", "bob"))
        assert [type(event) for event in ann.take()] == [Connected, UserOnline]
        [connected] = bob.take()
        assert [user.display_name for user in connected.users] == ["Bob", "Ann"]

        ann.do("update_activity", UserStatus.IN_GAME, "Snake")
        [changed] = bob.take()
        assert type(changed) is ActivityChanged
        assert (changed.user.status, changed.user.activity) == (UserStatus.IN_GAME, "Snake")
        invite = bob.do("send_invite", "Snake", "XY")
        assert [replace(event, extra={}) for event in ann.take()] == [GameInvite("bob", "Bob", "Snake", "XY")]
        assert bob.take() == ([InviteSent(invite, ("Ann",))] if jarvis == "bob" else [])
        ann.do("send_poke", "bob")
        assert [replace(event, extra={}) for event in bob.take()] == [Poked("ann", "Ann")]

        lan.advance(60.0)
        counts = {jarvis: 2, phoenix: None}
        assert [host.client.server_count for host in (ann, bob)] == [counts["ann"], counts["bob"]]
        assert ann.take() == bob.take() == []

        lan.cut(ann.driver.name)
        ann.do("update_activity", UserStatus.ONLINE)
        lan.advance(2.0)
        lost, back = ann.take()
        assert lost == Disconnected("eof", 1.0)
        assert (back.online_count, back.resumed) == (2, True)
        seen = [type(event) for event in bob.take()]
        # Jarvis has a grace for who comes back soon; Phoenix knows no such thing.
        assert seen == ([ActivityChanged] if jarvis == "ann" else [UserOffline, UserOnline])

        ann.do("disconnect")
        lan.advance(3.0)
        assert [type(event) for event in bob.take()] == [UserOffline]
        assert bob.client.online_count == 1


def test_a_program_that_is_started_again_at_once_does_not_do_what_it_did() -> None:
    lan = Lan(HubConfig(presence_window=0))
    bob = lan.join("bob", "ws://hub:8790")
    first = lan.join("ann", "ws://hub:8790")
    first.do("update_activity", UserStatus.IN_GAME, "Snake")
    first.do("disconnect")
    lan.join("ann", "ws://hub:8790")
    ann = bob.client.online_users[1]
    assert (ann.status, ann.activity) == (UserStatus.ONLINE, None)
    assert [type(event) for event in bob.take()] == [Connected, UserOnline, ActivityChanged, ActivityChanged]


def test_the_constructor_chooses_once() -> None:
    client = PresenceClient(Identity("me", "Me"), PresenceConfig(server_url="ws://hub"))
    client.connect(now=0.0)
    assert client.server_count is None
