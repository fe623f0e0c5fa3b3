"""The addresses of a host: which to try, in which order, and what their failures come to (RFC 8305). And
those of peers."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Found: TypeAlias = tuple[Any, ...]  # family, type, protocol, name, address: an item of `getaddrinfo`

STAGGER = 0.25
"""Seconds that an address has for itself. Then the next one is tried beside it (RFC 8305 §5)."""


def look_up(host: str, port: int, flags: int = 0) -> list[Found]:
    """What `getaddrinfo` finds for TCP. It may take long, and raises `OSError` or `UnicodeError`."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def numeric(host: str, port: int) -> list[Found]:
    """The address that `host` is itself; an empty list when it is a name. Does not wait."""
    try:
        return look_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


def in_turn(found: Iterable[Found]) -> list[Found]:
    """The addresses with their families in turn (RFC 8305 §4): a broken IPv6 costs one `STAGGER` only."""
    families: dict[Any, list[Found]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for turn in zip_longest(*families.values()) for one in turn if one is not None]


def none_works(errors: Sequence[OSError]) -> OSError:
    """What to raise when every address has failed; without an error there was no address."""
    if not errors:
        return socket.gaierror(socket.EAI_NONAME, "it has no address")
    if len(errors) == 1:
        return errors[0]
    failure = OSError("no address of the host works")
    failure.__cause__ = ExceptionGroup("the addresses", list(errors))  # as trio reports it
    return failure


def one_peer(address: str) -> str:
    """What the addresses of one peer have in common: all of an IPv4 address, of IPv6 the network.

    A customer has a /64 of IPv6 at least (RFC 6177), and may take another address of it each time.
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
    return str(ip)
