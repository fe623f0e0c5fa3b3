"""How to join a channel of Supabase Realtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError, LocalProtocolError
from presence_proto.json_text import decode, encode_payload
from presence_proto.validators import MOST_NESTING


@frozen(kw_only=True)
class BroadcastReplay:
    """The stored broadcasts that a private Supabase channel sends after the join.

    They are the newest `limit` (1 to 25) of those stored at `since` or later: milliseconds since 1970, as
    `int(time.time() * 1000)` gives them for now; `None` for as far back as the server keeps any.
    """

    since: int | None = field(default=None, validator=check.epoch_ms_or_none)
    limit: int = field(default=25, validator=check.replay_limit)


def _replay(value: Any) -> BroadcastReplay | None:
    if value is None or isinstance(value, BroadcastReplay):
        return value
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ConfigError(f"broadcast_replay must be a BroadcastReplay, a mapping or None, not {kind}")
    unknown = [name for name in value if name not in ("since", "limit")]
    if unknown:
        raise ConfigError(f"broadcast_replay takes since and limit, not {unknown[0]!r}")
    return BroadcastReplay(**value)


def _changes(value: Any) -> tuple[dict[str, Any], ...]:
    changes = check.as_tuple(value)
    if not isinstance(changes, tuple) or not all(isinstance(change, Mapping) for change in changes):
        raise ConfigError("postgres_changes must be a sequence of mappings")
    return tuple(_json_copy("postgres_changes", changes))


def _extra(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"extra must be a mapping, not {type(value).__name__}")
    copy: dict[str, Any] = _json_copy("extra", value)
    return copy


def _json_copy(name: str, value: Any) -> Any:
    """A copy that the application cannot change any more, in JSON's own types."""
    try:
        return decode(encode_payload(value), name, MOST_NESTING)
    except LocalProtocolError as exc:
        raise ConfigError(str(exc).replace("payload", name, 1)) from None


_JOIN_FIELDS = {
    ("broadcast", "ack"): "broadcast_ack",
    ("broadcast", "self"): "broadcast_self",
    ("broadcast", "replay"): "broadcast_replay",
    ("broadcast", "replication_ready"): "replication_ready",
    ("presence", "enabled"): "presence",
    ("presence", "key"): "presence_key",
    ("postgres_changes",): "postgres_changes",
    ("private",): "private",
}
"""What stands where in Supabase's join config, and the field of `ChannelConfig` that says it."""

_COMPARED = ("event", "schema", "table", "filter")


@frozen(kw_only=True)
class ChannelConfig:
    """How to join a Supabase Realtime channel (`realtime:…`). Plain Phoenix takes a mapping instead.

    `presence_key` names us in the presence; the server makes one up when it is empty. `track_limit` calls
    of track and untrack are made in `track_window` seconds; `None` for no limit. Supabase closes a channel
    after more than 5 in 30 s: the default leaves 3 s for calls that take their time on the way.

    `broadcast_replay` (a `BroadcastReplay`, or a mapping with its fields) asks a private channel for stored
    broadcasts, each with `{"replayed": True, "id": …}` as `Broadcast.meta`. After a rejoin those that have
    come already are passed over. `replication_ready` asks for a `SystemMessage` as soon as the server
    listens to the database. `extra` is merged into the config of the join, for what has no field here.
    Raises `ConfigError` for what the server would refuse, and for an `extra` that says what a field says.
    """

    broadcast_ack: bool = field(default=False, validator=check.boolean)
    broadcast_self: bool = field(default=False, validator=check.boolean)
    broadcast_replay: BroadcastReplay | None = field(default=None, converter=_replay)
    replication_ready: bool = field(default=False, validator=check.boolean)
    presence: bool = field(default=True, validator=check.boolean)
    presence_key: str = field(default="", validator=check.text_or_empty)
    private: bool = field(default=False, validator=check.boolean)
    postgres_changes: Sequence[Mapping[str, Any]] = field(default=(), converter=_changes)
    extra: Mapping[str, Any] = field(factory=dict, converter=_extra, hash=False)
    track_limit: int | None = field(default=5, validator=check.positive_int_or_none)
    track_window: float = field(default=33.0, validator=check.seconds)

    def __attrs_post_init__(self) -> None:
        if self.broadcast_replay is not None and not self.private:
            raise ConfigError("broadcast_replay needs private=True: no other channel replays broadcasts")
        for path, name in _JOIN_FIELDS.items():
            part: Any = self.extra
            for key in path[:-1]:
                part = part.get(key, {})
                if not isinstance(part, Mapping):
                    raise ConfigError(f"extra: {key} must be a mapping: the fields of the config stand in it")
            if path[-1] in part:
                raise ConfigError(f"extra must not hold {'.'.join(path)}: set the field {name}")

    def join_config(self) -> dict[str, Any]:
        """The `config` of the join's payload, as Supabase wants it."""
        presence: dict[str, Any] = {"enabled": self.presence, "key": self.presence_key}
        broadcast: dict[str, Any] = {"ack": self.broadcast_ack, "self": self.broadcast_self}
        replay = self.broadcast_replay
        if replay is not None:  # else not even null: the server refuses it on a public channel
            broadcast["replay"] = {"since": replay.since or 0, "limit": replay.limit}
        if self.replication_ready:
            broadcast["replication_ready"] = True
        config: dict[str, Any] = {
            "broadcast": broadcast,
            "presence": presence,
            "postgres_changes": self.postgres_changes,
            "private": self.private,
        }
        for name, value in self.extra.items():
            # The only parts that both may say something in, see _JOIN_FIELDS.
            config[name] = {**config[name], **value} if name in ("broadcast", "presence") else value
        return config

    def is_confirmed_by(self, response: Any) -> bool:
        """Whether the response to the join has the `postgres_changes` that it asked for, in their order.

        Compared is what realtime-js compares. The server adds an id to each, and may fill in the rest.
        """
        if not self.postgres_changes:
            return True
        confirmed = response.get("postgres_changes") if isinstance(response, dict) else None
        if not isinstance(confirmed, list) or len(confirmed) != len(self.postgres_changes):
            return False
        return all(
            isinstance(change, dict) and all(change.get(name) == asked.get(name) for name in _COMPARED)
            for asked, change in zip(self.postgres_changes, confirmed, strict=True)
        )
