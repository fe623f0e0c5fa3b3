"""Strategies for presence payloads and for presence histories (`presence_histories`).

The payloads are well-formed, but a real server may never send some of the payloads. A history is a sequence
of messages that a real server can send.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import msgspec
from attrs import field, frozen
from hypothesis import strategies as st

from presence_proto.events import UserStatus
from presence_proto.presence import Meta
from presence_proto.testing.strategies.values import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


Entries: TypeAlias = dict[str, dict[str, Any]]
"""Payload of a `presence_state`, or one side of a `presence_diff`: `{key: {"metas": [{"phx_ref": ...}]}}`."""

_KEYS = st.sampled_from(["ann", "bob", "cy", "7", "", "__proto__"])
_REFS = st.sampled_from(["r1", "r2", "r3", "r4", "r5", "r6"])
# One draw per example; separate strategies for the fields would need six draws.
_TRACKED = st.sampled_from(
    [
        {**status, **activity}
        for activity in ({}, {"activity": None}, {"activity": "Chess"}, {"activity": "Snake"})
        for status in ({}, *({"status": status.value} for status in UserStatus))
    ]
)


@st.composite
def tracked_payloads(draw: st.DrawFn) -> dict[str, Any]:
    """Metas that a client may track: empty, or with a status, an activity, or both."""
    return dict(draw(_TRACKED))


@st.composite
def metas(
    draw: st.DrawFn,
    refs: st.SearchStrategy[str] = _REFS,
    fields: st.SearchStrategy[Mapping[str, Any]] = _TRACKED,
) -> dict[str, Any]:
    """Metas with a `phx_ref` from `refs` and further fields from `fields`. The few default refs repeat."""
    return {"phx_ref": draw(refs), **draw(fields)}


def entries(
    *,
    keys: st.SearchStrategy[str] = _KEYS,
    metas: st.SearchStrategy[dict[str, Any]] | None = None,
    max_keys: int = 4,
    max_metas: int = 4,
    twins: bool = True,
) -> st.SearchStrategy[Entries]:
    """Presence entries with arbitrary refs: a ref may have several keys or contents.

    A key may have no metas. An entry may have another field beside `metas`. The parameter `metas` defaults to
    the strategy `metas()`. With `twins`, a ref may occur twice in one list.
    """
    of_one = st.lists(
        _METAS if metas is None else metas,
        max_size=max_metas,
        unique_by=None if twins else lambda meta: str(meta["phx_ref"]),
    )
    entry = st.fixed_dictionaries({"metas": of_one}, optional={"user": st.integers(1, 2)})
    return st.dictionaries(keys, entry, max_size=max_keys)


def diffs(entries: st.SearchStrategy[Entries] | None = None) -> st.SearchStrategy[dict[str, Entries]]:
    """Payloads of `presence_diff`. Both sides are drawn from `entries`, which defaults to `entries()`."""
    entries = _ENTRIES if entries is None else entries
    return st.fixed_dictionaries({"joins": entries, "leaves": entries})


_METAS = metas()
_ENTRIES = entries()


# ---------------------------------------------------------------------------------------------------- cluster
# The presence of one topic on a small cluster of nodes, and the diffs that the client receives.
#
# The client is connected to node 0. The other nodes may leave the cluster and return.


T = TypeVar("T")

NODES = (0, 1, 2)


@frozen
class ClusterDevice:
    """One tracked meta of a user. `previous` is the ref before the last update, or `None`."""

    user: str
    node: int
    ref: str
    fields: Mapping[str, Any]
    previous: str | None = None

    @property
    def meta(self) -> dict[str, Any]:
        previous = {} if self.previous is None else {"phx_ref_prev": self.previous}
        return {"phx_ref": self.ref, **previous, **self.fields}


Devices: TypeAlias = tuple[ClusterDevice, ...]
Change: TypeAlias = tuple[Any, ...]
"""A change of a cluster: a method of `Cluster`, followed by the arguments of the method."""


@frozen
class Told:
    """A message to the client. `there` has the devices that are online after the message."""

    event: str
    payload: dict[str, Any]
    there: Devices


def entries_of(devices: Iterable[ClusterDevice]) -> Entries:
    """Return the presence payload that contains the metas of `devices`."""
    found: Entries = {}
    for device in devices:
        metas = found.setdefault(device.user, {"metas": []})["metas"]
        metas.append(device.meta)
    return copied(found)


def copied(payload: T) -> T:
    """Return a deep copy of a payload, because the receiver may modify the payload."""
    copy: T = msgspec.to_builtins(payload)
    return copy


class Cluster:
    """Model of a cluster: the online devices, and the messages (`told`) that the client has received.

    The client receives at most `room` messages; later changes send nothing. An `index` selects an online
    device or an eligible node; too large an index wraps around. A method does nothing if no device or node is
    available.
    """

    def __init__(self, *, max_devices: int, room: int) -> None:
        self.told: list[Told] = []
        self.there: dict[str, ClusterDevice] = {}  # ref -> device
        self._away: dict[int, Devices] = {}  # lost node -> its devices
        self._refs = 0
        self._max_devices = max_devices
        self._room = room

    # ---------------------------------------------------------------- changes that one diff can combine

    def join(self, user: str, node: int, fields: Mapping[str, Any]) -> None:
        """A new device of a user comes online and tracks a meta."""
        lost = [device for devices in self._away.values() for device in devices]
        if [device.user for device in [*self.there.values(), *lost]].count(user) < self._max_devices:
            self._add(self._new(user, 0 if node in self._away else node, fields))

    def leave(self, index: int) -> None:
        """A device goes offline."""
        if self.there:
            self._remove(self._device(index))

    def update(self, index: int, fields: Mapping[str, Any]) -> None:
        """A device replaces its tracked meta."""
        if self.there:
            old = self._device(index)
            self._remove(old)
            self._add(self._new(old.user, old.node, fields, old.ref))

    # ---------------------------------------------------------------- changes with messages

    def change(self, change: Change) -> None:
        """Apply a change and send its diff."""
        self.merge([change])

    def merge(self, changes: Iterable[Change]) -> None:
        """Apply changes and send the net difference in one diff."""
        before = dict(self.there)
        for method, *args in changes:
            method(self, *args)
        self._tell_since(before)

    def update_twice(self, index: int, fields: Mapping[str, Any]) -> None:
        """A device tracks twice before one diff. The `phx_ref_prev` of the diff was never sent as a ref."""
        if self.there:
            before, ref = dict(self.there), self._device(index).ref
            for _ in range(2):
                self.update(list(self.there).index(ref), fields)
                ref = next(reversed(self.there))
            self._tell_since(before)

    def again(self) -> None:
        """Send the last diff again."""
        if self.told and self.told[-1].event == "presence_diff":
            self._tell("presence_diff", copied(self.told[-1].payload))

    def flash(self, user: str, fields: Mapping[str, Any]) -> None:
        """A device joins and leaves before one diff, which contains the device on both sides."""
        device = self._new(user, 0, fields)
        self._tell_diff([device], [device])

    def leave_unknown(self, user: str, fields: Mapping[str, Any]) -> None:
        """A device leaves, although its join was never sent."""
        self._tell_diff([], [self._new(user, 0, fields)])

    def arrive(self, node: int, users: Iterable[str], fields: Mapping[str, Any]) -> None:
        """Devices of one node join in one diff, as when a new node enters the cluster."""
        before = dict(self.there)
        for user in users:
            self.join(user, node, fields)
        self._tell_since(before)

    def lose(self, index: int, burst: bool) -> None:
        """A node is lost. All its devices leave in one diff or, with `burst`, in one diff each."""
        nodes = sorted({device.node for device in self.there.values()} - {0})
        if nodes:
            node = nodes[index % len(nodes)]
            lost = tuple(device for device in self.there.values() if device.node == node)
            self._away[node] = lost
            self._tell_each(lost, self._remove, burst)

    def heal(self, index: int, burst: bool, again: bool) -> None:
        """A lost node returns. Its devices join with their old refs if `again`, otherwise with new refs."""
        if self._away:
            node = sorted(self._away)[index % len(self._away)]
            back = self._away.pop(node)
            if not again:
                back = tuple(self._new(device.user, node, device.fields) for device in back)
            self._tell_each(back, self._add, burst)

    def flap(self, index: int, burst: bool, again: bool, change: Change) -> None:
        """A node is lost, another change happens, and a lost node returns."""
        self.lose(index, burst)
        self.change(change)
        self.heal(index, burst, again)

    def resync(self, changes: Iterable[Change]) -> None:
        """The client misses the diffs of `changes`, then rejoins and receives a presence state."""
        for method, *args in changes:
            method(self, *args)
        self._tell("presence_state", entries_of(self.there.values()))

    # ----------------------------------------------------------------

    def _device(self, index: int) -> ClusterDevice:
        return list(self.there.values())[index % len(self.there)]

    def _new(
        self, user: str, node: int, fields: Mapping[str, Any], previous: str | None = None
    ) -> ClusterDevice:
        self._refs += 1
        return ClusterDevice(user, node, f"r{self._refs}", fields, previous)

    def _add(self, device: ClusterDevice) -> None:
        self.there[device.ref] = device

    def _remove(self, device: ClusterDevice) -> None:
        del self.there[device.ref]

    def _tell_each(self, devices: Devices, change: Callable[[ClusterDevice], None], burst: bool) -> None:
        for group in [(device,) for device in devices] if burst else [devices]:
            before = dict(self.there)
            for device in group:
                change(device)
            self._tell_since(before)

    def _tell_since(self, before: Mapping[str, ClusterDevice]) -> None:
        joins = [device for ref, device in self.there.items() if ref not in before]
        leaves = [device for ref, device in before.items() if ref not in self.there]
        if joins or leaves:
            self._tell_diff(joins, leaves)

    def _tell_diff(self, joins: Iterable[ClusterDevice], leaves: Iterable[ClusterDevice]) -> None:
        self._tell("presence_diff", {"joins": entries_of(joins), "leaves": entries_of(leaves)})

    def _tell(self, event: str, payload: dict[str, Any]) -> None:
        if len(self.told) < self._room:
            self.told.append(Told(event, payload, tuple(self.there.values())))


# -------------------------------------------------------------------------------------------------- histories
# The presence messages that a correct server sends to one client, each with the expected presence.


Oddity: TypeAlias = Literal[
    "duplicates", "early diffs", "flashes", "merged", "netsplits", "overlaps", "resyncs", "unknown leaves"
]
ODDITIES: frozenset[Oddity] = frozenset(get_args(Oddity))
"""Irregularities that a correct client must handle.

- `"duplicates"`: The server sends the same diff twice in a row.
- `"early diffs"`: Diffs precede the presence state, which may or may not contain their changes.
- `"flashes"`: A ref that joined and left is on both sides of one diff.
- `"merged"`: One diff contains several changes. A `phx_ref_prev` may name a ref that was never sent.
- `"netsplits"`: All devices of a node join, leave in one or more diffs, and return with old or new refs.
- `"overlaps"`: The presence state already contains the changes of the next diffs.
- `"resyncs"`: Some diffs are lost before another presence state arrives, as after a reconnect.
- `"unknown leaves"`: A ref leaves, although its join was never sent.
"""

Truth: TypeAlias = Mapping[str, Mapping[str, Meta]]
"""The expected presence: key → `phx_ref` → meta. As in a presence state, metas have no order in time."""


@frozen(repr=False)
class PresenceStep(Program):
    """One presence message: its `event` (`presence_state` or `presence_diff`) and its `payload`.

    `present` has the refs that the client must hold after the message. `None` means that the refs are
    undefined at this point: no presence state has arrived yet, or the state is newer than the diffs.
    """

    event: str
    payload: dict[str, Any]
    present: tuple[str, ...] | None


@frozen(repr=False)
class PresenceHistory(Program):
    """Presence messages to one client: a presence state, diffs before and after, and possibly more states.

    A client stores diffs that precede the first state, and applies these diffs right after the state.
    """

    steps: tuple[PresenceStep, ...]
    truths: tuple[Truth | None, ...] = field(init=False, eq=False)
    """The expected presence after each step, or `None` where the presence is undefined."""

    @truths.default
    def _truths(self) -> tuple[Truth | None, ...]:
        # Computed eagerly and from copies, because an application may change the payloads that it receives.
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
        """The expected presence after the last step."""
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
    """Histories of `users` with at most `max_devices` devices each, in at most `max_steps` messages.

    A history may contain any of the `oddities`. Without oddities, a history has one presence state, followed
    by one diff for each change. `fields` generates the metas that devices track (default:
    `tracked_payloads()`). Raise `ValueError` for an unknown oddity.
    """
    if not ODDITIES.issuperset(oddities):
        raise ValueError(f"unknown oddities: {sorted(set(oddities) - ODDITIES)}")
    fields = tracked_payloads() if fields is None else fields
    user = st.sampled_from(users)
    node = st.sampled_from(NODES) if "netsplits" in oddities else st.just(0)
    room = max_steps - 1  # messages before and after the first state
    # Small numbers are likelier, so that messages follow.
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
    """Changes of a cluster. Plain changes are first, because examples shrink to the first ones."""
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
    # Each change needs few draws: Hypothesis deletes at most five draws at a time when it shrinks.
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
    # Three lists: one has only five changes on average, some of which do nothing or precede the client.
    for method, *args in [one for _ in range(3) for one in draw(happenings)]:
        method(cluster, *args)
    # The client joins before the last `lengths` messages. Of `told[0]` only the devices then online count.
    told = [Told("presence_state", {}, ()), *cluster.told][-1 - draw(lengths) :]
    states = [number for number, one in enumerate(told[1:]) if one.event == "presence_state"]
    diffs = states[0] if states else len(told) - 1
    # The first state follows `early` of the diffs that precede the next state, and includes `held` of them.
    early = min(draw(delays), diffs)
    held = min(max(early - draw(ages) + draw(leads), 0), diffs)
    state = Told("presence_state", entries_of(told[held].there), told[early].there)
    steps = [PresenceStep(one.event, one.payload, None) for one in told[1 : early + 1]]
    for number, one in enumerate([state, *told[early + 1 :]], start=early):
        present = tuple(device.ref for device in one.there) if number >= held else None
        steps.append(PresenceStep(one.event, one.payload, present))
    return PresenceHistory(tuple(steps))
