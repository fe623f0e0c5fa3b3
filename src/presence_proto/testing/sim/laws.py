"""The laws of a simulated world, as a `SimViolation` names them."""

from __future__ import annotations

from typing import Final

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
VIEW: Final = "when all has arrived, the roster is the hub's truth"
ANSWER: Final = "a command has one outcome, in time"
ONCE: Final = "a message is heard once, by whom it is for"
REACH: Final = "what the hub took reaches all who are there"
HONEST: Final = "an honest hub breaks no rules"
LIVENESS: Final = "after the faults all becomes well in time"
