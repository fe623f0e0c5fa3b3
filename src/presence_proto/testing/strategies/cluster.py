"""The presence of one topic on a small cluster, and the diffs that tell of it.

Node 0 is the one that the client is connected to; the others may be lost, and come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from presence_proto.testing.strategies.presence import Entries

T = TypeVar("T")

NODES = (0, 1, 2)


@frozen
class ClusterDevice:
    """One meta that is there: a `ref`, and with it what was tracked, and perhaps the ref before."""

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
"""A method of `Cluster`, and its arguments."""


@frozen
class Told:
    """A message to the client, and who is there once it was sent."""

    event: str
    payload: dict[str, Any]
    there: Devices


def entries_of(devices: Iterable[ClusterDevice]) -> Entries:
    """A payload with these metas."""
    found: Entries = {}
    for device in devices:
        metas = found.setdefault(device.user, {"metas": []})["metas"]
        metas.append(device.meta)
    return copied(found)


def copied(payload: T) -> T:
    """A copy that shares no dict or list: who is told may change what it was told."""
    copy: T = msgspec.to_builtins(payload)
    return copy


class Cluster:
    """Who is there, what was told of it, and what is to be told.

    At most `room` messages are told. What comes then happens unheard. An index counts the devices that are
    there, or the nodes that can do something, from the start again when it is too large; without any, nothing
    happens.
    """

    def __init__(self, *, max_devices: int, room: int) -> None:
        self.told: list[Told] = []
        self.there: dict[str, ClusterDevice] = {}  # by ref
        self._away: dict[int, Devices] = {}  # what was on the nodes that are lost
        self._refs = 0
        self._max_devices = max_devices
        self._room = room

    # ---------------------------------------------------------------- what can be together in one diff

    def join(self, user: str, node: int, fields: Mapping[str, Any]) -> None:
        """A device tracks."""
        lost = [device for devices in self._away.values() for device in devices]
        if [device.user for device in [*self.there.values(), *lost]].count(user) < self._max_devices:
            self._add(self._new(user, 0 if node in self._away else node, fields))

    def leave(self, index: int) -> None:
        """A device is gone."""
        if self.there:
            self._remove(self._device(index))

    def update(self, index: int, fields: Mapping[str, Any]) -> None:
        """A device tracks again."""
        if self.there:
            old = self._device(index)
            self._remove(old)
            self._add(self._new(old.user, old.node, fields, old.ref))

    # ---------------------------------------------------------------- what is told

    def change(self, change: Change) -> None:
        """It happens, and is told."""
        self.merge([change])

    def merge(self, changes: Iterable[Change]) -> None:
        """All of them in one diff, which tells only what has come of it."""
        before = dict(self.there)
        for method, *args in changes:
            method(self, *args)
        self._tell_since(before)

    def update_twice(self, index: int, fields: Mapping[str, Any]) -> None:
        """A device tracks again, and again. What is told names a ref before that nobody has seen."""
        if self.there:
            before, ref = dict(self.there), self._device(index).ref
            for _ in range(2):
                self.update(list(self.there).index(ref), fields)
                ref = next(reversed(self.there))
            self._tell_since(before)

    def again(self) -> None:
        """The last diff comes twice."""
        if self.told and self.told[-1].event == "presence_diff":
            self._tell("presence_diff", copied(self.told[-1].payload))

    def flash(self, user: str, fields: Mapping[str, Any]) -> None:
        """A device comes and goes in one diff, which has it on both sides."""
        device = self._new(user, 0, fields)
        self._tell_diff([device], [device])

    def leave_unknown(self, user: str, fields: Mapping[str, Any]) -> None:
        """A device goes that nobody was told of."""
        self._tell_diff([], [self._new(user, 0, fields)])

    def arrive(self, node: int, users: Iterable[str], fields: Mapping[str, Any]) -> None:
        """A node is seen for the first time, and its whole part joins."""
        before = dict(self.there)
        for user in users:
            self.join(user, node, fields)
        self._tell_since(before)

    def lose(self, index: int, burst: bool) -> None:
        """A node is lost, and its whole part leaves: in one diff, or in a `burst` of them."""
        nodes = sorted({device.node for device in self.there.values()} - {0})
        if nodes:
            node = nodes[index % len(nodes)]
            lost = tuple(device for device in self.there.values() if device.node == node)
            self._away[node] = lost
            self._tell_each(lost, self._remove, burst)

    def heal(self, index: int, burst: bool, again: bool) -> None:
        """A lost node is back, and its whole part joins: `again` with the same refs, or with new ones."""
        if self._away:
            node = sorted(self._away)[index % len(self._away)]
            back = self._away.pop(node)
            if not again:
                back = tuple(self._new(device.user, node, device.fields) for device in back)
            self._tell_each(back, self._add, burst)

    def flap(self, index: int, burst: bool, again: bool, change: Change) -> None:
        """A node is lost and comes back, and meanwhile something else happens."""
        self.lose(index, burst)
        self.change(change)
        self.heal(index, burst, again)

    def resync(self, changes: Iterable[Change]) -> None:
        """The client does not hear of these changes. Then it joins again, and is told a state."""
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
