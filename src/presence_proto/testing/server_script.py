"""Steps that happen to a client, such as a lost connection, and `play`, which runs a script of steps.

    play([Track("ann"), Cut(), Track("bob"), Wait(1.0)], client)

A script is a list of steps. The repr of a step is the expression that creates the step, so a failing script
can be pasted into a test. An impossible step does nothing, so every part of a script is a valid script.
`topic` is an index into the topics that the client has joined. `device` is an index into the devices that
came online. Indexes that are too large wrap around.
"""

from __future__ import annotations

from contextlib import nullcontext
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
    "Call",
    "Connect",
    "Crash",
    "Cut",
    "Die",
    "Echo",
    "Refuse",
    "RepeatDiff",
    "Restart",
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
    "Together",
    "Track",
    "Untrack",
    "Wait",
    "play",
]

MAX_EVENTS = 1000  # maximum number of events of one step; more events indicate an endless loop

Which: TypeAlias = Literal["now", "old", "none", "unknown"]

T = TypeVar("T")


class ScriptContext:
    """State of one script: the client, its `ModelServer`, and the topics and devices that steps refer to."""

    def __init__(self, client: Any, **options: Any) -> None:
        self.server = ModelServer(client, **options)
        self.devices: list[Device] = []

    def topic(self, number: int) -> str:
        """Return the topic at an index. Raise `LocalProtocolError` when the client has joined no topic."""
        return _one_of(list(dict.fromkeys(join.topic for join in self.server.sent("phx_join"))), number)

    def device(self, number: int) -> Device:
        """Return the device at an index. Raise `LocalProtocolError` when no device came online."""
        return _one_of(self.devices, number)

    def do(self, step: Step) -> None:
        """Run a step and check the client. Raise `ContractError` when the check fails."""
        before = len(self.server.events)
        try:
            step.happen(self)
        except LocalProtocolError:
            pass  # impossible now: no connection, topic or device; bytes on V1; a ref in a binary frame
        self.server.check()
        require(len(self.server.events) - before <= MAX_EVENTS, f"{step!r} leads to events without end")


def _one_of(items: list[T], number: int) -> T:
    if not items:
        raise LocalProtocolError("there is none")
    return items[number % len(items)]


def play(
    script: Iterable[Step],
    client: Any,
    *,
    after_step: Callable[[ModelServer], None] | None = None,
    **options: Any,
) -> ModelServer:
    """Run a script on a `RealtimeClient` or `PresenceClient`, and return the server.

    A closed client connects first. After each step, `play` checks that the client keeps the driver contract,
    reports only documented events, has the state that follows from its events, and reports at most 1000
    events per step. A failed check raises `ContractError`. After the check, `play` calls
    `after_step(server)`, for example to pass `server.take()` to an application and to check that application.
    `ModelServer` receives the `options` `now`, `deflate` and `chunk`.
    """
    context = ScriptContext(client, **options)
    for step in (Connect(), *script):
        context.do(step)
        if after_step is not None:
            after_step(context.server)
    return context.server


class Step(Protocol):
    """Interface of the steps of a script."""

    def happen(self, context: ScriptContext) -> None:
        """Run the step. Raise `LocalProtocolError` when the step is impossible at that moment."""


class _Printed:
    """Mixin whose repr omits fields with their default value."""

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
        # Hypothesis prints examples with this hook of IPython.
        printer.text(repr(self))


@frozen(repr=False)
class Connect(_Printed):
    """The application connects."""

    def happen(self, context: ScriptContext) -> None:
        """Call the client's `connect` if the client is closed."""
        if context.server.client.is_closed:
            context.server.connect()


@frozen(repr=False)
class Call(_Printed):
    """The application calls a method of the client: `Call("send_poke", ("ann",))`."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})

    def happen(self, context: ScriptContext) -> None:
        """Call the method with `now`. Append the step and the result to `calls` of the server."""
        server = context.server
        result = server.do(getattr(server.client, self.method), *self.args, **self.kwargs)
        server.calls.append((self, result))


# ---------------------------------------------------------------------------------------------- presence


@frozen(repr=False)
class Track(_Printed):
    """A device of a user comes online."""

    key: str
    meta: Mapping[str, Any] = MappingProxyType({})
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """Send the device's join in a diff. An unjoined client receives the device in the next state."""
        context.devices.append(context.server.track(context.topic(self.topic), self.key, self.meta))


@frozen(repr=False)
class Retrack(_Printed):
    """A device replaces its tracked meta."""

    device: int
    meta: Mapping[str, Any] = MappingProxyType({})

    def happen(self, context: ScriptContext) -> None:
        """Send a join and a leave in one diff."""
        context.server.retrack(context.device(self.device), self.meta)


@frozen(repr=False)
class Untrack(_Printed):
    """A device goes offline."""

    device: int

    def happen(self, context: ScriptContext) -> None:
        """Send a leave in a diff."""
        context.server.untrack(context.device(self.device))


@frozen(repr=False)
class Together(_Printed):
    """The client receives several presence changes in one read, merged into one diff if `merged`."""

    changes: tuple[Track | Retrack | Untrack, ...]
    merged: bool = True

    def happen(self, context: ScriptContext) -> None:
        """Send the diffs. An impossible change skips the remaining changes."""
        server = context.server
        with server.one_read(), server.one_diff() if self.merged else nullcontext():
            for change in self.changes:
                change.happen(context)


@frozen(repr=False)
class SendBroadcast(_Printed):
    """Another client sends a broadcast."""

    event: str
    payload: Any
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """Send the broadcast if the client has joined the topic."""
        topic = context.topic(self.topic)
        if topic in context.server.channels:
            context.server.broadcast(self.event, self.payload, topic=topic)


# ---------------------------------------------------------------------------------------------- network, time


@frozen(repr=False)
class Cut(_Printed):
    """The connection ends. With `noticed=False`, the server keeps the client's presence."""

    noticed: bool = True

    def happen(self, context: ScriptContext) -> None:
        """End the connection. Presences that stay online become devices, which later steps can untrack."""
        if context.server.conn is None:
            raise LocalProtocolError("there is no connection")
        context.devices += context.server.hang_up(noticed=self.noticed)
        context.server.cut()


@frozen(repr=False)
class Restart(_Printed):
    """The server restarts, and loses all presence."""

    def happen(self, context: ScriptContext) -> None:
        """End the connection and delete all presence."""
        context.server.restart()


@frozen(repr=False)
class Die(_Printed):
    """The network fails silently. The network recovers when the client has detected the failure."""

    def happen(self, context: ScriptContext) -> None:
        """Stop the delivery of bytes in both directions."""
        context.server.die()


@frozen(repr=False)
class SendClose(_Printed):
    """The server closes the connection with a WebSocket close code."""

    code: int = 1012

    def happen(self, context: ScriptContext) -> None:
        """Start the WebSocket closing handshake from the server."""
        context.server.close(self.code)


@frozen(repr=False)
class Refuse(_Printed):
    """The server refuses the next upgrade with an HTTP status."""

    status: int = 503

    def happen(self, context: ScriptContext) -> None:
        """Queue the refusal for the next upgrade request."""
        context.server.refusals.append(self.status)


@frozen(repr=False)
class Crash(_Printed):
    """The server ends a channel with `phx_error` or `phx_close`."""

    event: Literal["phx_error", "phx_close"] = "phx_error"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """End the channel. The client must rejoin the channel."""
        context.server.crash(context.topic(self.topic), self.event)


@frozen(repr=False)
class Wait(_Printed):
    """The clock advances by `seconds`."""

    seconds: float

    def happen(self, context: ScriptContext) -> None:
        """Advance the clock, with a tick at each deadline."""
        context.server.advance(self.seconds)


@frozen(repr=False)
class Sleep(_Printed):
    """The client's host sleeps for `seconds`."""

    seconds: float

    def happen(self, context: ScriptContext) -> None:
        """Advance the clock, with one late tick at the end."""
        context.server.jump(self.seconds)


# ---------------------------------------------------------------------------------------------- slow server


@frozen(repr=False)
class Stall(_Printed):
    """The server stops accepting connections and replying to messages."""

    def happen(self, context: ScriptContext) -> None:
        """Stall the server until a `Serve` step."""
        context.server.stall()


@frozen(repr=False)
class ServeOne(_Printed):
    """The server stalls, but processes its oldest waiting task.

    With `latest`, the server processes the client's last message instead, if that message is a push.
    """

    latest: bool = False

    def happen(self, context: ScriptContext) -> None:
        """Make the server process one waiting task."""
        context.server.serve_one(latest=self.latest)


@frozen(repr=False)
class Serve(_Printed):
    """The server processes all waiting tasks, and ends its stall."""

    def happen(self, context: ScriptContext) -> None:
        """End the effect of a `Stall` step."""
        context.server.serve()


# ---------------------------------------------------------------------------------------------- buggy server


@frozen(repr=False)
class RepeatDiff(_Printed):
    """The server sends the last diff again."""

    def happen(self, context: ScriptContext) -> None:
        """Send the diff. The client's presence must not change."""
        context.server.repeat_diff()


@frozen(repr=False)
class Echo(_Printed):
    """The server sends the end of, or a reply to, the previous join of a topic."""

    event: Literal["phx_close", "phx_error", "phx_reply"] = "phx_close"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """Send the event. The client must ignore the event."""
        context.server.echo(context.topic(self.topic), self.event)


@frozen(repr=False)
class SendReply(_Printed):
    """The server replies, perhaps for a second time, to a message of the client.

    `back` selects the message: 0 is the client's last message, 1 is the message before the last.
    """

    back: int = 0
    status: str = "ok"
    response: Any = None

    def happen(self, context: ScriptContext) -> None:
        """Send a reply with the refs of the selected message."""
        said = context.server.sent()
        if self.back < len(said):
            context.server.reply(said[-1 - self.back], self.status, self.response)


@frozen(repr=False)
class Say(_Printed):
    """The server sends an arbitrary message.

    `join_ref` and `ref` each select a ref for the message: the ref of the current join (`"now"`), the ref of
    the first join (`"old"`), no ref (`"none"`) or an unknown ref (`"unknown"`).
    """

    event: str
    payload: Any
    join_ref: Which = "now"
    ref: Which = "none"
    topic: int = 0

    def happen(self, context: ScriptContext) -> None:
        """Send the message."""
        topic = context.topic(self.topic)
        joins = [join.ref for join in context.server.sent("phx_join", topic)]
        refs = {"now": joins[-1], "old": joins[0], "none": None, "unknown": "999"}
        context.server.say(refs[self.join_ref], refs[self.ref], topic, self.event, self.payload)


# --------------------------------------------------------------------------------------------- hostile server


@frozen(repr=False)
class SendText(_Printed):
    """The server sends a text message with arbitrary content."""

    text: str

    def happen(self, context: ScriptContext) -> None:
        """Send the message."""
        context.server.say_text(self.text)


@frozen(repr=False)
class SendBinary(_Printed):
    """The server sends a binary message with arbitrary content."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        """Send the message."""
        context.server.say_binary(self.data)


@frozen(repr=False)
class SendBytes(_Printed):
    """The server sends arbitrary bytes, possibly before the WebSocket upgrade."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        """Send the bytes."""
        context.server.deliver(self.data)
