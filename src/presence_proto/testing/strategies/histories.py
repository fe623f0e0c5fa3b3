"""Presence as a client of a well-behaved server is told it, message by message, with the truth beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen
from hypothesis import strategies as st

from presence_proto.presence import Meta
from presence_proto.testing.strategies.cluster import NODES, Change, Cluster, Told, copied, entries_of
from presence_proto.testing.strategies.presence import tracked_payloads
from presence_proto.testing.strategies.program import Program

Oddity: TypeAlias = Literal[
    "duplicates", "early diffs", "flashes", "merged", "netsplits", "overlaps", "resyncs", "unknown leaves"
]
ODDITIES: frozenset[Oddity] = frozenset(get_args(Oddity))
"""What a correct client must put up with.

- `"duplicates"`: the same diff twice, one after the other
- `"early diffs"`: diffs before the state, which may hold what they say, or not
- `"flashes"`: a ref on both sides of one diff; it came and went
- `"merged"`: several changes in one diff; a `phx_ref_prev` may name a ref that was never seen
- `"netsplits"`: whole nodes arrive, are lost in a burst of leaves, come back with the same refs or new ones
- `"overlaps"`: the state holds what the next diffs say once more
- `"resyncs"`: some diffs are lost, then a state comes again, as after a reconnect
- `"unknown leaves"`: a ref leaves that nobody was told of
"""

Truth: TypeAlias = Mapping[str, Mapping[str, Meta]]
"""Who is there: key → `phx_ref` → meta. Metas are in no order of time in a state, so there is none here."""


@frozen(repr=False)
class PresenceStep(Program):
    """One message: its `event`, `presence_state` or `presence_diff`, and its payload.

    `present` are the refs of all that must be held after it. `None`: a correct client may hold other ones for
    a moment, since no state came yet, or the state was ahead of the diffs.
    """

    event: str
    payload: dict[str, Any]
    present: tuple[str, ...] | None


@frozen(repr=False)
class PresenceHistory(Program):
    """What a client is told: a state, perhaps with some diffs before it, then diffs, perhaps states.

    Diffs before the first state wait for it, and are applied right after it.
    """

    steps: tuple[PresenceStep, ...]
    truths: tuple[Truth | None, ...] = field(init=False, eq=False)
    """What must be held after each step, or `None` where that is not defined."""

    @truths.default
    def _truths(self) -> tuple[Truth | None, ...]:
        # Now, and from copies: an application may change the payloads that it is given.
        metas: dict[str, tuple[str, Meta]] = {}
        truths = []
        for step in self.steps:
            joins = step.payload if step.event == "presence_state" else step.payload["joins"]
            for key, entry in joins.items():
                metas |= {meta["phx_ref"]: (key, copied(meta)) for meta in entry["metas"]}
            truths.append(None if step.present is None else _truth(metas[ref] for ref in step.present))
        return tuple(truths)

    @property
    def truth(self) -> Truth:
        """What must be held in the end."""
        truth = self.truths[-1]
        assert truth is not None, "a history that was drawn ends where all is told"
        return truth


def _truth(metas: Iterator[tuple[str, Meta]]) -> Truth:
    truth: dict[str, dict[str, Meta]] = {}
    for key, meta in metas:
        truth.setdefault(key, {})[meta["phx_ref"]] = meta
    return truth


def presence_histories(
    *,
    users: Sequence[str] = ("ann", "bob", "cy", "di"),
    max_devices: int = 3,
    max_steps: int = 16,
    oddities: Collection[Oddity] = ODDITIES,
    fields: st.SearchStrategy[Mapping[str, Any]] | None = None,
) -> st.SearchStrategy[PresenceHistory]:
    """Histories of `users`, each on at most `max_devices` devices, in at most `max_steps` messages.

    `oddities` may happen, but need not; without any there is one state, and then one diff for each change.
    `fields` is what the devices track, `tracked_payloads` if not given. Raises `ValueError` for an unknown
    oddity.
    """
    if not ODDITIES.issuperset(oddities):
        raise ValueError(f"unknown oddities: {sorted(set(oddities) - ODDITIES)}")
    fields = tracked_payloads() if fields is None else fields
    user = st.sampled_from(users)
    node = st.sampled_from(NODES) if "netsplits" in oddities else st.just(0)
    room = max_steps - 1  # for what follows the first state, or comes before it
    # Most often a few of them, so that there is something after.
    some = st.integers(0, 3) | st.integers(0, 3) | st.integers(0, room)
    early = some if "early diffs" in oddities else st.just(0)
    return _histories(
        max_devices,
        room,
        st.lists(_happenings(user, node, fields, oddities), max_size=room),
        st.integers(0, room),
        early,
        early,
        some if "overlaps" in oddities else st.just(0),
    )


def _happenings(
    user: st.SearchStrategy[str],
    node: st.SearchStrategy[int],
    fields: st.SearchStrategy[Mapping[str, Any]],
    oddities: Collection[Oddity],
) -> st.SearchStrategy[Change]:
    """What may happen to a cluster, the plain things first: shrinking leads there."""
    index, yes = st.integers(0, 7), st.booleans()
    join, leave = _act(Cluster.join, user, node, fields), _act(Cluster.leave, index)
    plain = [join, join, leave, _act(Cluster.update, index, fields)]
    changes = st.one_of(*plain)
    several = st.lists(changes, min_size=1, max_size=4)
    odd = {
        "duplicates": [_act(Cluster.again)],
        "flashes": [_act(Cluster.flash, user, fields)],
        "merged": [_act(Cluster.merge, several), _act(Cluster.update_twice, index, fields)],
        "netsplits": [
            _act(Cluster.arrive, st.sampled_from(NODES[1:]), st.lists(user, max_size=4), fields),
            _act(Cluster.lose, index, yes),
            _act(Cluster.heal, index, yes, yes),
            _act(Cluster.flap, index, yes, yes, changes),
        ],
        "resyncs": [_act(Cluster.resync, several)],
        "unknown leaves": [_act(Cluster.leave_unknown, user, fields)],
    }
    kinds = [kind for oddity in sorted(odd.keys() & set(oddities)) for kind in odd[oddity]]
    # Few draws for each: Hypothesis drops five at a time, and not more.
    told = [_act(Cluster.change, change) for change in plain]
    return st.one_of(*told * max(1, len(kinds) // len(told)), *kinds)


def _act(method: Any, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Change]:
    return st.tuples(st.just(method), *args)


@st.composite
def _histories(
    draw: st.DrawFn,
    max_devices: int,
    room: int,
    happenings: st.SearchStrategy[list[Change]],
    lengths: st.SearchStrategy[int],
    delays: st.SearchStrategy[int],
    ages: st.SearchStrategy[int],
    leads: st.SearchStrategy[int],
) -> PresenceHistory:
    cluster = Cluster(max_devices=max_devices, room=2 * room)
    # A list has five items on average. That is little: some come to nothing, and some before the client.
    for method, *args in [one for _ in range(3) for one in draw(happenings)]:
        method(cluster, *args)
    # The client comes when all but so many of the messages are told: what can be a state is no diff.
    told = [Told("presence_state", {}, ()), *cluster.told][-1 - draw(lengths) :]
    states = [number for number, one in enumerate(told[1:]) if one.event == "presence_state"]
    diffs = states[0] if states else len(told) - 1
    # The first state comes after `early` of the diffs that stand before the next, and holds `held` of them.
    early = min(draw(delays), diffs)
    held = min(max(early - draw(ages) + draw(leads), 0), diffs)
    state = Told("presence_state", entries_of(told[held].there), told[early].there)
    steps = [PresenceStep(one.event, one.payload, None) for one in told[1 : early + 1]]
    for number, one in enumerate([state, *told[early + 1 :]], start=early):
        present = tuple(device.ref for device in one.there) if number >= held else None
        steps.append(PresenceStep(one.event, one.payload, present))
    return PresenceHistory(tuple(steps))
