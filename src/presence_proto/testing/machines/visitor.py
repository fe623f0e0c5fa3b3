"""A client of a hub as the machine sees it: what it asked for, and what it made of the answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from presence_proto.testing.contract import require
from presence_proto.testing.scripted_clients import ScriptedClient, supabase_join

Entries = dict[str, dict[str, dict[str, Any]]]  # key -> phx_ref -> meta


def is_supabase(topic: str) -> bool:
    """Whether it is a Supabase channel, and not one of plain Phoenix."""
    return topic.startswith("realtime:")


class Visitor:
    """Speaks Phoenix by the book, and reads strictly: whatever the hub says must make sense where it stands.

    `strict`: a diff never repeats what is known. (One that was held back for a window may.)
    """

    def __init__(self, name: str, client: ScriptedClient, *, strict: bool) -> None:
        self.name = name
        self.client = client
        self.joined: dict[str, str] = {}  # the join_refs
        self.held: dict[str, Entries] = {}
        self.heard: Counter[tuple[str, int]] = Counter()  # topic and number of what others said
        self._strict = strict
        self._refs = 0
        self._unanswered: set[str] = set()
        self._gone: dict[str, set[str]] = {}  # by join_ref: the phx_refs that left in that life
        self._ending: dict[str, str] = {}  # lives that the hub must close, by join_ref

    def __repr__(self) -> str:
        return self.name

    @property
    def is_open(self) -> bool:
        """Whether the connection is there."""
        return self.client.conn not in self.client.world.closed

    @property
    def is_on_supabase(self) -> bool:
        """Whether it came to Supabase's mount."""
        return self.client.target.startswith("/realtime/")

    # ---------------------------------------------------------------- what it says

    def join(self, topic: str, key: str) -> None:
        """Join, perhaps again: then the hub ends the life before."""
        ref = self._next_ref()
        if topic in self.joined:
            self._ending[self.joined[topic]] = topic
        self.joined[topic] = ref
        self.held.pop(topic, None)
        payload = supabase_join(key) if is_supabase(topic) else {"user_id": key}
        self._say(ref, topic, "phx_join", payload, ref)

    def leave(self, topic: str, *, answered: bool = True) -> None:
        """Leave."""
        ref = self._next_ref()
        if not answered:
            self._unanswered.remove(ref)
        self._ending[self.joined[topic]] = topic
        self._say(ref, topic, "phx_leave", {}, self.joined.pop(topic))
        self.held.pop(topic, None)

    def track(self, topic: str, meta: dict[str, Any]) -> None:
        """Be present with this meta."""
        self._present(topic, "track", meta)

    def untrack(self, topic: str) -> None:
        """Be present no more."""
        self._present(topic, "untrack", {})

    def shout(self, topic: str, number: int) -> None:
        """Say something to the others. Supabase is not asked for an answer."""
        ref = self._next_ref()
        if is_supabase(topic):
            self._unanswered.discard(ref)
            payload = {"type": "broadcast", "event": "shout", "payload": {"number": number}}
            self._say(ref, topic, "broadcast", payload)
        else:
            self._say(ref, topic, "shout", {"number": number})

    def beat(self) -> None:
        """A heartbeat."""
        self.client.say(None, self._next_ref(), "phoenix", "heartbeat", {})

    def expect_the_end_of(self, topic: str) -> None:
        """The hub is about to end the channel."""
        self._ending[self.joined.pop(topic)] = topic
        self.held.pop(topic, None)

    def _present(self, topic: str, event: str, meta: dict[str, Any]) -> None:
        if is_supabase(topic):
            self._say(self._next_ref(), topic, "presence", {"event": event, "payload": meta})
        else:
            self._say(self._next_ref(), topic, event, meta)

    def _say(self, ref: str, topic: str, event: str, payload: Any, join_ref: str | None = None) -> None:
        self.client.say(join_ref or self.joined[topic], ref, topic, event, payload)

    def _next_ref(self) -> str:
        self._refs += 1
        ref = str(self._refs)
        self._unanswered.add(ref)
        return ref

    # ---------------------------------------------------------------- what it hears

    def read(self) -> None:
        """Take in what came. Raises `ContractError` for what no hub may say."""
        for _, ref, topic, event, payload in self.client.take():
            if event == "phx_reply":
                require(ref in self._unanswered, f"{self}: a reply to {ref}, which waits for none")
                require(payload["status"] == "ok", f"{self}: {topic!r} said {payload}")
                self._unanswered.remove(ref)
            elif event in ("phx_close", "phx_error"):
                require(
                    self._ending.pop(ref, None) == topic, f"{self}: an end of {topic!r} that nobody asked for"
                )
            elif event == "system":
                require(topic in self._ending.values(), f"{self}: {topic!r} says {payload}")
            else:
                require(topic in self.joined, f"{self} is told {event!r} of {topic!r}, and is not in it")
                self._read(topic, event, payload)
        if self.is_open:
            require(not self._unanswered, f"{self} waits for replies to {self._unanswered}")
            require(not self._ending, f"{self} waits for the end of {self._ending}")

    def _read(self, topic: str, event: str, payload: Any) -> None:
        if event == "presence_state":
            require(topic not in self.held, f"{self}: a second state of {topic!r}")
            self.held[topic] = _entries(payload)
        elif event == "presence_diff":
            require(topic in self.held, f"{self}: a diff of {topic!r} before its state")
            self._fold(topic, _entries(payload["joins"]), _entries(payload["leaves"]))
        else:
            self.heard[topic, payload.get("payload", payload)["number"]] += 1

    def _fold(self, topic: str, joins: Entries, leaves: Entries) -> None:
        held, gone = self.held[topic], self._gone.setdefault(self.joined[topic], set())
        for key, metas in joins.items():
            known = (held.setdefault(key, {}).keys() | gone) & metas.keys()
            require(not (known and self._strict), f"{self}: {known} of {key!r} joined twice")
            held[key].update(metas)
        for key, metas in leaves.items():
            # One that is not known may have been there before the state.
            require(not (gone & metas.keys() and self._strict), f"{self}: a meta of {key!r} left twice")
            for ref in metas:
                held.get(key, {}).pop(ref, None)
                gone.add(ref)
            if not held.get(key, True):
                del held[key]


def _entries(payload: Any) -> Entries:
    return {key: {meta["phx_ref"]: meta for meta in entry["metas"]} for key, entry in payload.items()}
