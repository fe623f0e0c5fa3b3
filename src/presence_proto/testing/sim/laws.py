"""The laws of a simulated world, as a `SimViolation` names them."""

from __future__ import annotations

from typing import Final

from presence_proto.errors import reduce_exception

CONTRACT: Final = "the contract of endpoints"
"""Draining runs no protocol code, the deadline lies in the future, one connection at a time, ids grow."""
WEATHER: Final = "weather never raises"
"""Nothing that a peer, a network or a clock does raises out of an endpoint."""
FORGOTTEN: Final = "a fact about a forgotten connection is ignored"
BOUNDS: Final = "the outputs for one fact are bounded"
ALIVE: Final = "a client never gives up, and always has a deadline"
QUIET: Final = "without a fault nobody loses anything"
FOLD: Final = "folding the events reproduces the roster"
STORY: Final = "Connected comes once, and says whether it resumes"
GHOST: Final = "who is shown is there"
"""Nobody comes online, and nobody is in a roster, who was not present when the hub said so."""
FLICKER: Final = "who goes offline was away"
"""Nobody goes offline whose presence went on when the hub said so."""
GRACE: Final = "who is in the room when the hub restarts is not told to leave at once"
"""A client that comes back to a hub that has forgotten everybody still shows all that it showed."""
VIEW: Final = "when all has arrived, the roster is the hub's truth"
ANSWER: Final = "a command has one outcome, in time"
ONCE: Final = "a message is heard once, by whom it is for"
ORDER: Final = "no message comes before its sender"
"""Who hears a message, and is told of presence, has been told that its sender is there."""
REACH: Final = "what the hub took reaches all who are there"
HONEST: Final = "an honest hub breaks no rules"
LIVENESS: Final = "after the faults all becomes well in time"


# -------------------------------------------------------------------------------------------------- violation
# What a world says when a law is broken.


class SimViolation(AssertionError):  # noqa: N818 - it is a law that is broken, not the world
    """A law was broken in a simulated world.

    The text has all that is needed to see it again: `law` in words, `who` broke it, `details`, the virtual
    time `now` in seconds, how to `replay` it, and the `tail` of the log.
    """

    def __init__(self, law: str, who: str, details: str, *, now: float, replay: str, tail: list[str]) -> None:
        self.law = law
        self.who = who
        self.details = details
        self.now = now
        self.replay = replay
        self.tail = tail
        super().__init__(law, who, details)

    __reduce__ = reduce_exception

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.tail)
        return (
            f"{self.law} ({self.who}, at {self.now:.6f} s): {self.details}\n"
            f"  to see it again: {self.replay}\n"
            f"  the end of the log:{lines}"
        )
