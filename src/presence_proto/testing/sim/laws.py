"""The laws of a simulated world, as worded in the text of a `SimViolation`."""

from __future__ import annotations

from typing import Final

from presence_proto.errors import reduce_exception

CONTRACT: Final = "the contract of endpoints"
"""`presence_proto.testing.contract.Contract` lists the rules of the contract."""
WEATHER: Final = "weather never raises"
"""An endpoint's methods for facts and ticks never raise because of a peer, the network or a clock."""
FORGOTTEN: Final = "a fact about a forgotten connection is ignored"
BOUNDS: Final = "the outputs for one fact are bounded"
ALIVE: Final = "a client never stops trying, and always has a deadline"
QUIET: Final = "without a fault nobody loses anything"
FOLD: Final = "folding the events reproduces the roster"
STORY: Final = "Connected comes once, and says whether it resumes"
GHOST: Final = "who is shown is there"
"""A user who is reported online or in a roster was present when the hub sent the report."""
FLICKER: Final = "who goes offline was away"
"""A user who is reported offline was absent when the hub sent the report."""
GRACE: Final = "who is in the room when the hub restarts is not told to leave at once"
"""After rejoining a restarted, empty hub, a client still shows the users from before the restart."""
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

    The error text contains all attributes: the text of the `law`, the name of the host that broke the law
    (`who`), `details`, the virtual time in seconds (`now`), the way to repeat the world (`replay`), and the
    last lines of the log (`tail`).
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
