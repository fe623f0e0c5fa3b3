"""When everything is well again: what is still not as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.testing.sim.watch import ROOM, ChannelWatch, RoomWatch, looks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from presence_proto.client import PresenceClient
    from presence_proto.testing.sim.client_host import ClientHost
    from presence_proto.testing.sim.hub_host import HubHost
    from presence_proto.testing.sim.truth import Truth


def disagreement(hub: HubHost, clients: Iterable[ClientHost]) -> str | None:
    """Why the world is not settled: a connection is dead and nobody has noticed, a client is not as it should
    be, or the hub has not what clients want.

    `None` when it is settled. What endpoints of other kinds want nobody knows: with one of them, the hub is
    not asked for that.
    """
    if hub.truth.waiting:
        return f"the hub has changes to tell in {sorted(hub.truth.waiting)}"
    hosts = tuple(clients)
    for host in (hub, *hosts):
        for conn, end in host.ends.items():
            if not end.is_alive:
                what = (
                    "has not noticed that it is dead"
                    if end.is_open or end.was_closed
                    else "is still connecting"
                )
                return f"{host.name}, connection {conn}: {what}"
    for host in hosts:
        if host.watch is not None and (problem := host.watch.unsettled()) is not None:
            return problem
    if all(host.watch is not None for host in hosts):
        return _wrong_truth(hub.truth, hosts)
    return None


def _wrong_truth(truth: Truth, hosts: tuple[ClientHost, ...]) -> str | None:
    wanted: dict[str, dict[str, list[Any]]] = {ROOM: {}}  # what can be seen, by topic and key
    nameless: set[str] = set()  # topics where the server makes up keys
    shared: dict[str, list[Any]] = {}  # by user: what each Jarvis device wants, of which none may be wanted
    for host in hosts:
        if isinstance(host.watch, RoomWatch):
            client: PresenceClient = host.endpoint
            user_id, seen = client.identity.user_id, _seen(client)
            if not host.hears_chat:
                shared.setdefault(user_id, []).append(seen if host.wanted else None)
            elif host.wanted:
                wanted[ROOM].setdefault(user_id, []).append(seen)
        elif isinstance(host.watch, ChannelWatch) and host.wanted:
            for topic, (key, payload) in host.watch.wants.items():
                if payload is not None and not key:
                    nameless.add(topic)
                elif payload is not None:
                    wanted.setdefault(topic, {}).setdefault(key, []).append(_payload(topic, payload))
    for user_id, devices in shared.items():
        _share(wanted[ROOM], user_id, devices, [*map(looks_of, truth.online(ROOM).get(user_id, ()))])
    for topic in sorted({*truth.topics, *wanted} - nameless):
        online = truth.online(topic)
        there = {key: [_payload(topic, meta) for meta in metas] for key, metas in online.items()}
        if _sorted(there) != _sorted(wanted.get(topic, {})):
            return f"on the hub {topic} has {there}, and clients want {wanted.get(topic, {})}"
    return None


def _share(wanted: dict[str, list[Any]], user_id: str, devices: list[Any], there: list[Any]) -> None:
    """Add the one presence of all Jarvis devices of a user. With several it is as any of them said last."""
    online = [seen for seen in devices if seen is not None]
    if online:
        mine = wanted.setdefault(user_id, [])
        for seen in mine:
            if seen in there:
                there.remove(seen)
        mine.append(there[0] if len(devices) > 1 and there else online[0])


def _seen(client: PresenceClient) -> tuple[Any, ...]:
    return client.identity.display_name, str(client.status), client.activity


def _payload(topic: str, meta: Mapping[str, Any]) -> Any:
    """What of a presence must be as it was wanted."""
    if topic == ROOM:
        return looks_of(meta)
    return sorted((name, value) for name, value in meta.items() if name not in ("phx_ref", "phx_ref_prev"))


def _sorted(presence: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {key: sorted(map(repr, metas)) for key, metas in presence.items()}
