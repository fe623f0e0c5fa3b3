"""The laws of a simulated world, in the words of a `SimViolation`."""

from __future__ import annotations

from typing import Final

from presence_proto.errors import reduce_exception

CONTRACT: Final = "the contract of endpoints"
"""See `presence_proto.testing.contract.Contract` for its rules."""
WEATHER: Final = "weather never raises"
"""No fact and no tick makes an endpoint raise, whatever a peer, the network or a clock does."""
FORGOTTEN: Final = "a fact about a forgotten connection is ignored"
BOUNDS: Final = "the outputs for one fact are bounded"
ALIVE: Final = "a client never stops trying, and always has a deadline"
QUIET: Final = "without a fault nobody loses anything"
FOLD: Final = "folding the events reproduces the roster"
STORY: Final = "Connected comes once, and says whether it resumes"
GHOST: Final = "who is shown is there"
"""A user who comes online or is in a roster was present when the hub sent the message."""
FLICKER: Final = "who goes offline was away"
"""A user who goes offline was absent when the hub sent the message."""
GRACE: Final = "who is in the room when the hub restarts is not told to leave at once"
"""A client that rejoins a restarted, empty hub still shows the users whom it showed before."""
VIEW: Final = "when all has arrived, the roster is the hub's truth"
ANSWER: Final = "a command has one outcome, in time"
ONCE: Final = "a message is heard once, by whom it is for"
ORDER: Final = "no message comes before its sender"
"""A client that tracks presence receives the presence of a message's sender before the message."""
REACH: Final = "what the hub took reaches all who are there"
HONEST: Final = "an honest hub breaks no rules"
LIVENESS: Final = "after the faults all becomes well in time"


# -------------------------------------------------------------------------------------------------- violation
# The exception for a broken law.


class SimViolation(AssertionError):  # noqa: N818 - a violation of a law, not an error of the world
    """A law was broken in a simulated world.

    The message contains all attributes: the `law` in words, `who` broke it, `details`, the virtual time `now`
    in seconds, how to `replay` the world, and the `tail` of the log.
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
