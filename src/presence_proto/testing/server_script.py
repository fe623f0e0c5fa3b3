"""A small language for what happens to a client, and `play`, which lets it happen.

    play([Come("ann"), Cut(), Come("bob"), Wait(1.0)], client)

A script is a list of steps. The repr of a step is the expression that makes it, so a script that fails can be
pasted into a test. A step that makes no sense where it stands does nothing: any part of a script is a script.
`topic` counts the topics that the client has joined, `device` the devices that came; both wrap around.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from attrs import NOTHING, fields, frozen

from presence_proto.errors import LocalProtocolError
from presence_proto.testing.contract import require
from presence_proto.testing.model_server import Device, ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from attrs import Attribute

__all__ = [
    "Connect",
    "Crash",
    "Cut",
    "Die",
    "Echo",
    "Refuse",
    "RepeatDiff",
    "Retrack",
    "Say",
    "SendBinary",
    "SendBroadcast",
    "SendBytes",
    "SendClose",
    "SendReply",
    "SendText",
    "Serve",
    "ServeOne",
    "Sleep",
    "Stall",
    "Track",
    "Untrack",
    "Wait",
    "play",
]

MAX_EVENTS = 1000
"""A step that leads to more events than this leads to events without end."""

Which: TypeAlias = Literal["now", "old", "none", "unknown"]

T = TypeVar("T")


class ScriptContext:
    """One client and its `ModelServer`, for one script, and what the steps speak of: devices and topics."""

    def __init__(self, client: Any) -> None:
        self.server = ModelServer(client)
        self.devices: list[Device] = []

    def topic(self, number: int) -> str:
        """One of the topics that the client has joined. Raises `LocalProtocolError` when there is none."""
        return _one_of(list(dict.fromkeys(join.topic for join in self.server.sent("phx_join"))), number)

    def device(self, number: int) -> Device:
        """One of the devices that came. Raises `LocalProtocolError` when there is none."""
        return _one_of(self.devices, number)

    def do(self, step: Step) -> None:
        """Let a step happen, and check the client. Raises `ContractError`."""
        before = len(self.server.events)
        try:
            step.happen(self)
        except LocalProtocolError:
            pass  # there is no connection, topic or device; V1 carries no bytes, and a binary frame no ref
        self.server.check()
        require(len(self.server.events) - before <= MAX_EVENTS, f"{step!r} leads to events without end")


def _one_of(items: list[T], number: int) -> T:
    if not items:
        raise LocalProtocolError("there is none")
    return items[number % len(items)]


def play(
    script: Iterable[Step], client: Any, *, after_step: Callable[[ModelServer], None] | None = None
) -> ModelServer:
    """Let a script happen to a `RealtimeClient` or `PresenceClient`, and return the server.

    The client is connected first, unless it is already trying to. After each step it is checked: the driver
    contract, its events, which must be documented ones, folded, and that they come to an end; `ContractError`
    is raised when it fails. Then `after_step(server)` is called: there is the place to hand `server.take()`
    to an application, and to check that.
    """
    context = ScriptContext(client)
    for step in (Connect(), *script):
        context.do(step)
        if after_step is not None:
            after_step(context.server)
    return context.server


class Step(Protocol):
    """Something that happens."""

    def happen(self, context: ScriptContext) -> None:
        """Do it. `LocalProtocolError` means that it makes no sense now."""


class _Printed:
    """The repr leaves out what has its default."""

    __slots__ = ()

    def __repr__(self) -> str:
        every: tuple[Attribute[Any], ...] = fields(type(self))  # type: ignore[arg-type]  # all are attrs classes
        shown = [
            ("" if one.default is NOTHING else f"{one.name}=") + repr(getattr(self, one.name))
            for one in every
            if getattr(self, one.name) != one.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # What Hypothesis prints, after the protocol of IPython.
        printer.text(repr(self))


@frozen(repr=False)
class Connect(_Printed):
    """The application wants to be connected."""

    def happen(self, context: ScriptContext) -> None:
        """`connect`, if the client is at rest."""
        if context.server.client.is_closed:
            context.server.connect()


# ---------------------------------------------------------------------------------------------- who is there


@frozen(repr=False)
class Track(_Printed):
    """A device of a user comes online."""

    key: str
    meta: Mapping[str, Any] = MappingProxyType({})
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """A join in a diff, or in the next state."""
        context.devices.append(context.server.track(context.topic(self.topic), self.key, self.meta))


@frozen(repr=False)
class Retrack(_Printed):
    """A device tracks another meta."""

    device: int
    meta: Mapping[str, Any] = MappingProxyType({})

    def happen(self, context: ScriptContext) -> None:
        """A join and a leave in one diff."""
        context.server.retrack(context.device(self.device), self.meta)


@frozen(repr=False)
class Untrack(_Printed):
    """A device goes offline."""

    device: int

    def happen(self, context: ScriptContext) -> None:
        """A leave."""
        context.server.untrack(context.device(self.device))


@frozen(repr=False)
class SendBroadcast(_Printed):
    """Somebody broadcasts something."""

    event: str
    payload: Any
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """Those who are in the topic hear it."""
        topic = context.topic(self.topic)
        if topic in context.server.channels:
            context.server.broadcast(self.event, self.payload, topic=topic)


# ---------------------------------------------------------------------------------------------- weather


@frozen(repr=False)
class Cut(_Printed):
    """The connection ends. A server that has not `noticed` shows the client as online still."""

    noticed: bool = True

    def happen(self, context: ScriptContext) -> None:
        """The ghosts are devices, so that they can go later."""
        if context.server.conn is None:
            raise LocalProtocolError("there is no connection")
        context.devices += context.server.hang_up(noticed=self.noticed)
        context.server.cut()


@frozen(repr=False)
class Die(_Printed):
    """The network dies without a word. It is back when the client has noticed."""

    def happen(self, context: ScriptContext) -> None:
        """Nothing arrives any more."""
        context.server.die()


@frozen(repr=False)
class SendClose(_Printed):
    """The server closes the connection, with a WebSocket close code."""

    code: int = 1012

    def happen(self, context: ScriptContext) -> None:
        """The closing handshake."""
        context.server.close(self.code)


@frozen(repr=False)
class Refuse(_Printed):
    """The server refuses the next connection, with an HTTP status."""

    status: int = 503

    def happen(self, context: ScriptContext) -> None:
        """It will."""
        context.server.refusals.append(self.status)


@frozen(repr=False)
class Crash(_Printed):
    """The server ends a channel: `phx_error`, or `phx_close`."""

    event: Literal["phx_error", "phx_close"] = "phx_error"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """The client will join again."""
        context.server.crash(context.topic(self.topic), self.event)


@frozen(repr=False)
class Wait(_Printed):
    """Time passes: seconds."""

    seconds: float

    def happen(self, context: ScriptContext) -> None:
        """With a tick at each deadline."""
        context.server.advance(self.seconds)


@frozen(repr=False)
class Sleep(_Printed):
    """The host of the client sleeps: seconds."""

    seconds: float

    def happen(self, context: ScriptContext) -> None:
        """With one late tick."""
        context.server.jump(self.seconds)


# ---------------------------------------------------------------------------------------------- slow


@frozen(repr=False)
class Stall(_Printed):
    """The server stops to accept and to answer."""

    def happen(self, context: ScriptContext) -> None:
        """Until `Serve`."""
        context.server.stall()


@frozen(repr=False)
class ServeOne(_Printed):
    """The server stalls, but does one thing: the oldest that waits, or the reply to the `latest` push."""

    latest: bool = False

    def happen(self, context: ScriptContext) -> None:
        """One step of several."""
        context.server.serve_one(latest=self.latest)


@frozen(repr=False)
class Serve(_Printed):
    """The server answers all that waits, and from now on at once."""

    def happen(self, context: ScriptContext) -> None:
        """The end of a `Stall`."""
        context.server.serve()


# ---------------------------------------------------------------------------------------------- buggy


@frozen(repr=False)
class RepeatDiff(_Printed):
    """The last diff comes once more."""

    def happen(self, context: ScriptContext) -> None:
        """It changes nothing."""
        context.server.repeat_diff()


@frozen(repr=False)
class Echo(_Printed):
    """The server says of an earlier life of the channel what was true of it: its end, or a reply."""

    event: Literal["phx_close", "phx_error", "phx_reply"] = "phx_close"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """It changes nothing."""
        context.server.echo(context.topic(self.topic), self.event)


@frozen(repr=False)
class SendReply(_Printed):
    """A reply to the last message of the client or one `back` from there, answered before or not."""

    back: int = 0
    status: str = "ok"
    response: Any = None

    def happen(self, context: ScriptContext) -> None:
        """With its refs."""
        said = context.server.sent()
        if self.back < len(said):
            context.server.reply(said[-1 - self.back], self.status, self.response)


@frozen(repr=False)
class Say(_Printed):
    """Any message, with refs of the life of the channel that is or one that was, none, or unknown ones."""

    event: str
    payload: Any
    join_ref: Which = "now"
    ref: Which = "none"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """As it is."""
        topic = context.topic(self.topic)
        joins = [join.ref for join in context.server.sent("phx_join", topic)]
        refs = {"now": joins[-1], "old": joins[0], "none": None, "unknown": "999"}
        context.server.say(refs[self.join_ref], refs[self.ref], topic, self.event, self.payload)


# ---------------------------------------------------------------------------------------------- hostile


@frozen(repr=False)
class SendText(_Printed):
    """Any text message."""

    text: str

    def happen(self, context: ScriptContext) -> None:
        """As it is."""
        context.server.say_text(self.text)


@frozen(repr=False)
class SendBinary(_Printed):
    """Any binary message."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        """As it is."""
        context.server.say_binary(self.data)


@frozen(repr=False)
class SendBytes(_Printed):
    """Any bytes on the connection, also before the upgrade."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        """As they are."""
        context.server.deliver(self.data)
