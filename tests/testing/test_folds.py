"""What the folds hold a client to."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.events import PresenceDiffed
from presence_proto.presence import PresenceChange
from presence_proto.testing.contract import ContractError, RealtimeFold
from rig import online

ROOM = "room:lobby"


def told(*metas: dict[str, Any]) -> tuple[RealtimeFold, Any]:
    """A fold of a client that holds these metas of "ann", which came one after the other."""
    rig = online()
    fold = RealtimeFold(rig.client)
    fold.connected = True
    rig.join(ROOM, state={})
    for meta in metas:
        rig.diff({"ann": {"metas": [meta]}})
    for event in rig.take():
        fold.follow(event)
    return fold, rig


def test_a_meta_that_was_replaced_is_followed_in_content() -> None:
    fold, rig = told({"phx_ref": "1", "n": 1}, {"phx_ref": "2"}, {"phx_ref": "1", "n": 2})
    fold.check()
    assert rig.client.presence(ROOM)["ann"] == ({"phx_ref": "2"}, {"phx_ref": "1", "n": 2})
    assert [*fold.presence[ROOM]["ann"].values()] == [{"phx_ref": "2"}, {"phx_ref": "1", "n": 2}]


@pytest.mark.parametrize(
    ("joined", "fault"),
    [
        (({"phx_ref": "1", "n": 2},), "the metas of 'ann' differ"),
        (({"phx_ref": "1", "n": True},), "the metas of 'ann' differ"),
        (({"phx_ref": "2"},), "the refs of 'ann' differ"),
    ],
)
def test_events_that_tell_another_content_are_found(joined: tuple[Any, ...], fault: str) -> None:
    fold, _ = told({"phx_ref": "1", "n": 1})
    change = PresenceChange("ann", "updated", joined, ({"phx_ref": "1", "n": 1},))
    fold.follow(PresenceDiffed(ROOM, (change,)))
    with pytest.raises(ContractError, match=fault):
        fold.check()
