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
from presence_proto.errors import LocalProtocolError
from presence_proto.outputs import ConnId

METHODS = ["transport_opened", "receive_data", "transport_closed", "tick", "next_output", "next_deadline"]
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
    contract, own = (inspect.signature(getattr(owner, method)) for owner in (Endpoint, cls))
    assert own.parameters == contract.parameters
    assert getattr(cls, method).__doc__


def test_clients_give_all_outputs_at_once_too() -> None:
    def clients() -> list[Any]:
        return [client for client in endpoints() if not isinstance(client, Hub)]

    for client, twin in zip(clients(), clients(), strict=True):
        one_by_one = []
        for each in (client, twin):
            each.connect(now=0.0)
            each.disconnect(now=0.0)
            assert each.is_closed
        while (output := client.next_output()) is not None:
            one_by_one.append(output)
        assert len(one_by_one) > 2
        assert list(twin.drain()) == one_by_one
        assert not twin.drain()
        assert twin.next_output() is None


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda endpoint: type(endpoint).__name__)
class TestAtRest:
    def test_nothing_to_do_and_nothing_to_wait_for(self, endpoint: Any) -> None:
        assert endpoint.next_output() is None
        assert endpoint.next_deadline() is None

    def test_facts_about_unknown_connections_are_ignored(self, endpoint: Any) -> None:
        stranger = ConnId(99)
        endpoint.receive_data(stranger, b"GET / HTTP/1.1\r\n\r\n", now=1.0)
        endpoint.transport_closed(stranger, now=1.0, reason="reset")
        endpoint.tick(now=2.0)
        assert endpoint.next_output() is None
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
        assert endpoint.next_output() is None
