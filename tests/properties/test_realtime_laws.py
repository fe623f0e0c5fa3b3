"""The laws of the driver contract and the promises of `RealtimeClient`, on random stories.

Laws 1 to 5 (drain, time, weather, one life, end of stream) are checked by the rig after every step. `Story`
checks that what the application asked for comes true in the end and no push is dropped in silence (law 7),
and that folding the events gives the presence at every point (law 8).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties.scripts import Step, Story, steps

both = st.sampled_from(["1.0.0", "2.0.0"])


@given(steps, both, st.booleans())
def test_every_story_keeps_the_laws_and_ends_well_when_the_weather_does(
    story: list[Step], vsn: str, deflate: bool
) -> None:
    Story(vsn=vsn, deflate=deflate).tell(story).calm()


@given(steps, both, st.integers(1, 40), st.booleans())
def test_however_the_bytes_are_cut_the_story_is_the_same(
    story: list[Step], vsn: str, chunk: int, deflate: bool
) -> None:
    whole = Story(vsn=vsn, deflate=deflate).tell(story)
    cut = Story(vsn=vsn, deflate=deflate, chunk=chunk).tell(story)
    assert cut.transcript() == whole.transcript()


@given(steps, both)
def test_told_again_the_story_is_the_same(story: list[Step], vsn: str) -> None:
    assert Story(vsn=vsn).tell(story).transcript() == Story(vsn=vsn).tell(story).transcript()


@pytest.mark.long
def test_the_story_is_the_same_for_every_hash_seed() -> None:
    code = "from properties.scripts import LONG, Story; print(Story().tell(LONG).transcript())"
    told = []
    for seed in ("0", "1", "31337"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        told.append(subprocess.check_output([sys.executable, "-c", code], env=env))
    assert told[0].count(b"ChannelJoined") > 5
    assert told[0] == told[1] == told[2]
