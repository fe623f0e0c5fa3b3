"""What the client says on the Jarvis JSON protocol: activities, invites, pokes, pings; and no chat."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from jarvis_rig import ME, JarvisRig, user
from presence_proto.config import Identity, PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import CommandFailed, Disconnected, Error, InviteSent, UserStatus
from presence_proto.presence_client import PresenceClient


@pytest.fixture
def rig() -> JarvisRig:
    """In the room with Bo, and all that is told so far is taken."""
    rig = JarvisRig()
    rig.enter(user("bo"))
    rig.received.clear()
    return rig


class TestActivity:
    def test_it_is_told_once(self, rig: JarvisRig) -> None:
        rig.update(UserStatus.ONLINE)
        rig.update(UserStatus.AWAY, "tea")
        rig.update("away", "tea")
        rig.update(UserStatus.ONLINE)
        assert [(told["status"], told["activity"]) for told in rig.received] == [
            ("away", "tea"),
            ("online", None),
        ]
        assert rig.take() == []
        assert rig.client.pending_commands == frozenset()
        assert (rig.client.status, rig.client.activity) == (UserStatus.ONLINE, None)
        assert rig.client.online_users[0] == ME

    def test_our_own_roster_entry_changes_with_it(self, rig: JarvisRig) -> None:
        rig.update(UserStatus.AWAY, "tea")
        assert rig.client.online_users[0] == replace(ME, status=UserStatus.AWAY, activity="tea")


class TestInvites:
    def test_the_code_is_always_there(self, rig: JarvisRig) -> None:
        rig.invite("Chess")
        assert rig.received == [{"type": "game_invite", "game": "Chess", "code": None}]

    @pytest.mark.parametrize("echo", [{"code": None}, {"code": ""}, {}])
    def test_a_receipt_without_a_code(self, rig: JarvisRig, echo: dict[str, Any]) -> None:
        invite = rig.invite("Chess")
        assert rig.tell("invite_sent", game="Chess", **echo, sent_to=[]) == [InviteSent(invite, ())]

    def test_each_has_its_own_receipt(self, rig: JarvisRig) -> None:
        one, two, three = rig.invite("Chess", "1"), rig.invite("Chess", "2"), rig.invite("Chess", "1")
        assert rig.tell("invite_sent", game="Chess", code="2", sent_to=["Bo"]) == [InviteSent(two, ("Bo",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Bo"]) == [InviteSent(one, ("Bo",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Cy"]) == [InviteSent(three, ("Cy",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Cy"]) == []
        assert rig.client.pending_commands == frozenset()

    def test_a_receipt_that_does_not_come(self) -> None:
        rig = JarvisRig(command_timeout=5.0)
        rig.enter()
        invite = rig.invite("Chess")
        rig.advance(4.9)
        assert rig.take() == []
        rig.advance(0.1)
        assert rig.take() == [CommandFailed(invite, "send_invite", "no receipt in time")]
        other = rig.invite("Go")
        assert (
            rig.tell("invite_sent", game="Chess", code=None, sent_to=["Bo"]) == []
        )  # too late, and not Go's
        assert rig.tell("invite_sent", game="Go", code=None, sent_to=["Bo"]) == [InviteSent(other, ("Bo",))]

    @pytest.mark.parametrize("sent_to", [None, "Bo", 3, {"Bo": 1}, ["Bo", 1], [["Bo"]]])
    def test_a_receipt_that_names_nobody(self, rig: JarvisRig, sent_to: Any) -> None:
        invite = rig.invite("Chess")
        wrong = [Error("the invite_sent message must have a list of names in sent_to")]
        assert rig.tell("invite_sent", game="Chess", code=None, sent_to=sent_to) == wrong
        assert invite not in rig.client.pending_commands  # it did arrive
        assert rig.tell("invite_sent", game="Chess", code=None, sent_to=sent_to) == wrong


class TestCommands:
    def test_there_is_no_chat(self, rig: JarvisRig) -> None:
        with pytest.raises(LocalProtocolError, match="send_chat: the Jarvis JSON protocol has no chat"):
            rig.do(rig.client.send_chat, "lobby", "hello")
        assert rig.received == []
        assert rig.client.pending_commands == frozenset()

    def test_without_a_connection_nothing_is_said(self) -> None:
        client = PresenceClient(Identity("me", "Me"), PresenceConfig(server_url="ws://host:8790"))
        with pytest.raises(LocalProtocolError, match="send_invite: not connected, call connect first"):
            client.send_invite("Chess", now=0.0)
        with pytest.raises(LocalProtocolError, match="send_poke: not connected, call connect first"):
            client.send_poke("bo", now=0.0)

    def test_what_is_wrong_with_the_arguments_is_said(self, rig: JarvisRig) -> None:
        for command, arguments in [
            (rig.client.send_invite, ("",)),
            (rig.client.send_invite, ("Chess", "")),
            (rig.client.send_invite, ("\ud800",)),
            (rig.client.send_poke, (None,)),
        ]:
            with pytest.raises(LocalProtocolError, match="must be a non-empty string"):
                rig.do(command, *arguments)
        with pytest.raises(LocalProtocolError, match="status must be one of"):
            rig.update("dancing")
        assert rig.received == []

    def test_after_the_goodbye_nothing_can_be_said(self, rig: JarvisRig) -> None:
        rig.silent = True
        invite = rig.invite("Chess")
        rig.do(rig.client.disconnect)
        gone = CommandFailed(invite, "send_invite", "disconnect was called before the receipt")
        assert rig.take() == [gone]
        rig.update(UserStatus.AWAY)
        poke = rig.poke("bo")
        rig.release()
        assert rig.take() == [
            Disconnected("disconnect was called", None),
            CommandFailed(poke, "send_poke", "the connection ended"),
        ]
        assert rig.received[-1] == {"type": "disconnect"}
        with pytest.raises(LocalProtocolError, match="not connected"):
            rig.poke("bo")

    @pytest.mark.parametrize("now", [float("nan"), float("inf")])
    def test_what_is_no_time_is_refused(self, rig: JarvisRig, now: float) -> None:
        client = rig.client
        for command in (
            client.connect,
            client.disconnect,
            client.tick,
            lambda now: client.send_poke("bo", now=now),
            lambda now: client.update_activity("away", now=now),
            lambda now: client.set_access_token("other", now=now),
        ):
            with pytest.raises(LocalProtocolError):
                command(now=now)
        assert not client.drain()
        assert client.status is UserStatus.ONLINE


class TestPings:
    def test_they_go_out_every_heartbeat_interval(self) -> None:
        rig = JarvisRig(heartbeat_interval=30.0)
        rig.enter()
        rig.advance(29.9)
        assert rig.said("ping") == []
        rig.advance(0.1)
        assert len(rig.said("ping")) == 1
        rig.advance(90.0)
        assert len(rig.said("ping")) == 4
        assert rig.take() == []

    @pytest.mark.parametrize(
        ("says", "count"), [(0, 0), (7, 7), (True, None), ("7", None), (1.5, None), (None, None)]
    )
    def test_the_count_of_the_server(self, rig: JarvisRig, says: Any, count: int | None) -> None:
        rig.count = says
        rig.advance(60.0)
        assert rig.client.server_count == count
        assert rig.client.is_connected  # a pong is a pong
        assert rig.take() == []

    def test_a_pong_without_a_count_makes_the_last_one_void(self, rig: JarvisRig) -> None:
        rig.tell("pong", online_count=3)
        rig.tell("pong")
        assert rig.client.server_count is None

    def test_the_count_is_not_ours(self, rig: JarvisRig) -> None:
        assert rig.tell("pong", online_count=50) == []
        assert rig.client.server_count == 50
        assert rig.client.online_count == 2


def test_who_is_not_to_be_seen_leaves_the_status_as_it_is() -> None:
    rig = JarvisRig(visible=False)
    rig.enter(user("bo"))
    rig.poke("bo")
    assert [message["type"] for message in rig.received] == ["connect", "poke"]
    assert (rig.client.device_count("me"), rig.client.device_count("bo")) == (0, 1)
