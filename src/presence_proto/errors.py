"""Exceptions that reach the caller. What a peer does wrong is an event, never one of these out of a fact."""

from __future__ import annotations


class PresenceError(Exception):
    """Base of every exception that this package raises on purpose."""


class ConfigError(PresenceError, ValueError):
    """A config value that cannot work. The message names the field and what would be right."""


class LocalProtocolError(PresenceError):
    """The caller asked for something that is not legal now. Nothing has changed."""


class RemoteProtocolError(PresenceError):
    """The peer sent something malformed. The message names what was wrong, without secrets.

    Parsers raise it to their caller inside the core; no fact of an endpoint lets it out.
    """
