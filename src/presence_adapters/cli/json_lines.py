"""JSON for scripts: one object a line, in ASCII, since any terminal and any locale can take that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from presence_adapters.notifications import notification
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    from presence_adapters.event_queue import EventsDropped
    from presence_proto import PresenceEvent


def print_json(value: dict[str, Any]) -> None:
    """Print one line."""
    click.echo(json.dumps(value))


def print_event(event: PresenceEvent | EventsDropped) -> None:
    """Print an event: when, its type, and its data as `on_notification` has them."""
    event_type, data = notification(event)
    print_json({"time": utc_now(), "event": event_type, "data": data})
