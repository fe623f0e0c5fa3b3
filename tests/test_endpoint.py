"""Clients and hub keep one contract with the driver."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from presence_proto import (
    Endpoint,
    Hub,
    Identity,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
)
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError

METHODS = ["transport_opened", "receive_data", "transport_closed", "tick", "drain", "next_deadline"]
URL = "ws://127.0.0.1:1"


def endpoints() -> list[Endpoint]:
    """One of each kind. That this returns what it says is for the type checker to see."""
    config = PresenceConfig(server_url=URL)
    return [
        RealtimeClient(RealtimeConfig(server_url=URL)),
        PresenceClient(Identity("me", "Me"), config),
        Hub(),
    ]


def test_the_contract_is_what_the_drivers_use() -> None:
    public = {name for name in vars(Endpoint) if not name.startswith("_")}
    assert public == {*METHODS, "is_closed"}


@pytest.mark.parametrize("cls", [RealtimeClient, PresenceClient, Hub])
@pytest.mark.parametrize("method", METHODS)
def test_everybody_has_the_same_signatures(cls: type[Any], method: str) -> None:
    contract, own = (dict(inspect.signature(getattr(owner, method)).parameters) for owner in (Endpoint, cls))
    if (cls, method) == (Hub, "transport_opened"):  # a listener knows the address of the peer; no need to say
        assert own.pop("address").default is None
    assert own == contract
    assert getattr(cls, method).__doc__


def test_there_is_one_way_to_take_outputs() -> None:
    for endpoint in endpoints():
        taking = {name for name in dir(endpoint) if name in ("next_output", "next", "outputs", "take")}
        assert not taking


def test_a_drain_takes_all_outputs() -> None:
    config = RealtimeConfig(server_url=URL)
    client = RealtimeClient(config)
    client.connect(now=0.0)
    client.disconnect(now=0.0)
    assert client.is_closed
    outputs = client.drain()
    assert [type(output).__name__ for output in outputs] == [
        "OpenTransport",
        "CloseTransport",
        "SocketDisconnected",
    ]
    assert not client.drain()
    client.connect(now=1.0)
    assert [type(output).__name__ for output in client.drain()] == ["OpenTransport"]
    assert len(outputs) == 3, "what was drained stays as it was"


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda endpoint: type(endpoint).__name__)
class TestAtRest:
    def test_nothing_to_do_and_nothing_to_wait_for(self, endpoint: Any) -> None:
        assert not endpoint.drain()
        assert endpoint.next_deadline() is None

    def test_facts_about_unknown_connections_are_ignored(self, endpoint: Any) -> None:
        stranger = ConnId(99)
        endpoint.receive_data(stranger, b"GET / HTTP/1.1\r\n\r\n", now=1.0)
        endpoint.transport_closed(stranger, now=1.0, reason="reset")
        endpoint.tick(now=2.0)
        assert not endpoint.drain()
        assert endpoint.next_deadline() is None

    @pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf")])
    def test_times_that_are_none_are_refused(self, endpoint: Any, now: float) -> None:
        conn = ConnId(1)
        with pytest.raises(LocalProtocolError, match="now"):
            endpoint.tick(now=now)
        with pytest.raises(LocalProtocolError, match="now"):
            endpoint.transport_opened(conn, now=now)
        with pytest.raises(LocalProtocolError, match="now"):
            endpoint.receive_data(conn, b"x", now=now)
        with pytest.raises(LocalProtocolError, match="now"):
            endpoint.transport_closed(conn, now=now)
        assert not endpoint.drain()
