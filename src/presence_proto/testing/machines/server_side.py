"""What the machines for both clients have in common: they play the server, the network, the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from presence_proto.events import PresenceDiffed, UserOffline, UserOnline
from presence_proto.testing.machines.brief import BriefMachine
from presence_proto.testing.model_server import Device, ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEALED = 200.0
"""Seconds of good weather after which everything that was asked for must have come true."""


def of_machine(strategy: Callable[[Any], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A strategy that an attribute of the machine decides, so that a subclass may have another one."""
    return st.runner().flatmap(strategy)


a_topic = of_machine(lambda machine: st.sampled_from(machine.topics))
a_joined_topic = of_machine(lambda machine: st.sampled_from(list(machine.server.channels)))
a_rejoined_topic = of_machine(lambda machine: st.sampled_from(machine.server.rejoined))
a_key = of_machine(lambda machine: machine.keys)
a_meta = of_machine(lambda machine: machine.metas)


class ServerMachine(BriefMachine):
    """Rules for what happens to a client, whatever the client. `server` has the books."""

    topics: ClassVar[Sequence[str]]
    keys: ClassVar[st.SearchStrategy[str]] = st.sampled_from(["ann", "bob"])
    metas: ClassVar[st.SearchStrategy[Any]] = st.fixed_dictionaries({"n": st.integers(0, 3)})

    devices = Bundle("devices")

    def __init__(self) -> None:
        super().__init__()
        self.server = ModelServer(self.make_client())
        self.client = self.server.client

    def make_client(self) -> Any:
        """The client to be tried, at rest. Override it for your own."""
        raise NotImplementedError

    # ---------------------------------------------------------------- who is there

    @rule(target=devices, topic=a_topic, key=a_key, meta=a_meta)
    def device_tracks(self, topic: str, key: str, meta: Any) -> Device:
        """A device of a user comes online."""
        return self.server.track(topic, key, meta)

    @rule(device=devices, meta=a_meta)
    def device_retracks(self, device: Device, meta: Any) -> None:
        """A device tracks another meta. Its user neither comes nor goes."""
        before = len(self.server.events)
        self.server.retrack(device, meta)
        for event in self.server.events[before:]:
            assert not isinstance(event, (UserOnline, UserOffline)), "an update is no coming or going"
            for change in event.changes if isinstance(event, PresenceDiffed) else ():
                assert change.kind == "updated", "an update is no coming or going"

    @rule(device=consumes(devices))
    def device_untracks(self, device: Device) -> None:
        """A device goes offline."""
        self.server.untrack(device)

    @precondition(lambda self: self.server.channels)
    @rule()
    def repeat_diff(self) -> None:
        """The last diff comes once more."""
        self.server.repeat_diff()

    # ---------------------------------------------------------------- the channel

    @precondition(lambda self: self.server.channels)
    @rule(topic=a_joined_topic, event=st.sampled_from(["phx_error", "phx_close"]))
    def crash(self, topic: str, event: str) -> None:
        """The server ends a channel."""
        self.server.crash(topic, event)

    @precondition(lambda self: self.server.rejoined)
    @rule(topic=a_rejoined_topic, event=st.sampled_from(["phx_close", "phx_error", "phx_reply"]))
    def echo(self, topic: str, event: str) -> None:
        """The server speaks of a life of the channel that is over. It changes nothing."""
        before = len(self.server.events)
        self.server.echo(topic, event)
        assert self.server.events[before:] == [], "an earlier life of the channel is over"

    # ---------------------------------------------------------------- how fast it is

    @precondition(lambda self: not self.server.stalls)
    @rule()
    def stall(self) -> None:
        """The server stops to accept and to answer."""
        self.server.stall()

    @precondition(lambda self: self.server.stalls)
    @rule()
    def serve(self) -> None:
        """It answers all that waits, and from now on at once."""
        self.server.serve()

    @precondition(lambda self: self.server.stalls)
    @rule(latest=st.booleans())
    def serve_one(self, latest: bool) -> None:
        """It does one thing: the oldest, or the reply to the latest push."""
        self.server.serve_one(latest=latest)

    @precondition(lambda self: self.server.stalls)
    @rule()
    def deny(self) -> None:
        """It replies to a push with an error."""
        self.server.deny()

    # ---------------------------------------------------------------- the network

    @precondition(lambda self: self.server.conn is not None)
    @rule(target=devices, noticed=st.booleans())
    def cut(self, noticed: bool) -> MultipleResults[Device]:
        """The connection ends. Without being `noticed`, it leaves ghosts of us on the server."""
        ghosts = self.server.hang_up(noticed=noticed)
        self.server.cut()
        return multiple(*ghosts)

    @precondition(lambda self: self.server.is_open and not self.server.dead)
    @rule(kind=st.sampled_from(["dies", "closes", "refuses"]))
    def trouble(self, kind: str) -> None:
        """The network dies without a word, or the server closes the connection, or will refuse the next."""
        if kind == "dies":
            self.server.die()
        elif kind == "closes":
            self.server.close(1012)
        else:
            self.server.refusals.append(503)

    # ---------------------------------------------------------------- the clock

    @rule(seconds=st.sampled_from([1.0, 5.0, 12.0, 40.0]), asleep=st.booleans())
    def wait(self, seconds: float, asleep: bool) -> None:
        """Time passes. The host may be `asleep`: then there is one late tick."""
        self.server.jump(seconds) if asleep else self.server.advance(seconds)

    # ---------------------------------------------------------------- the application

    @rule(seconds=st.sampled_from([10.0, 60.0]))
    def restart(self, seconds: float) -> None:
        """It disconnects, and connects again after a while."""
        self.server.do(self.client.disconnect)
        self.server.advance(seconds)
        self.server.connect()

    # ---------------------------------------------------------------- the end

    @rule()
    def heal(self) -> None:
        """The weather is good for a while, and all that was asked for comes true."""
        self.server.refusals.clear()
        self.server.serve()
        self.server.advance(HEALED)
        self.healed()

    def healed(self) -> None:
        """The weather was good for a while: what must be true now. Override it for more."""
        assert self.client.is_connected, "it never comes back"

    # ---------------------------------------------------------------- what is true at all times

    @invariant()
    def the_events_are_the_state(self) -> None:
        """The events, folded, are what the client holds."""
        self.server.check()
