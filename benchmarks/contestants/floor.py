"""What cannot be beaten by much: bare decoders, and the least code that does the job.

python -m benchmarks.contestants.floor json | msgspec | inflate | prototype-text | prototype-bytes | undecoded
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.contestants.child import MemoryContestant, serve
from benchmarks.contestants.stream import Stream


class Decoder:
    """Decodes the text, and nothing else. It has no roster."""

    def __init__(self, decode: Callable[[str | bytes], Any]) -> None:
        self._decode = decode

    def load(self, texts: list[str], topics: list[str]) -> None:
        pass

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts

    def run(self) -> int:
        decode = self._decode
        for text in self._texts:
            decode(text)
        return len(self._texts)

    def roster(self) -> dict[str, list[str]]:
        return {}


class Inflater(Decoder):
    """Takes compressed messages, and decodes them. It has no roster."""

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._deflater = zlib.compressobj(wbits=-15)
        self._inflater = zlib.decompressobj(-15)
        self.prepare(texts)
        self.run()

    def prepare(self, texts: list[str]) -> None:
        flush, compress = self._deflater.flush, self._deflater.compress
        self._messages = [compress(text.encode()) + flush(zlib.Z_SYNC_FLUSH) for text in texts]

    def run(self) -> int:
        decode, inflate = self._decode, self._inflater.decompress
        for message in self._messages:
            decode(inflate(message))
        return len(self._messages)


class Change(msgspec.Struct, frozen=True, gc=False):
    """An event of the prototype."""

    key: str
    joined: list[dict[str, Any]]
    left: list[dict[str, Any]]


class Prototype:
    """One topic, no errors, no options: decode, merge in place, tell. What a library has to add to this is
    its price."""

    def __init__(self, *, text: bool) -> None:
        self._text = text
        self._decode = msgspec.json.Decoder().decode
        self._there: dict[str, dict[str, dict[str, Any]]] = {}

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._there = {}
        for text in texts:
            *_, event, payload = json.loads(text)
            assert event == "presence_state"
            for key, entry in payload.items():
                self._there[key] = {meta["phx_ref"]: meta for meta in entry["metas"]}

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts
        self._chunks = Stream().chunks(texts)

    def run(self) -> int:
        count = 0
        if self._text:
            for text in self._texts:
                count += len(self._take(text))
            return count
        rest = b""
        for chunk in self._chunks:
            data = rest + chunk
            at, end = 0, len(data)
            while end - at >= 10:
                size, start = data[at + 1], at + 2
                if size == 126:
                    size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
                elif size == 127:
                    size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
                if start + size > end:
                    break
                count += len(self._take(data[start : start + size].decode()))
                at = start + size
            rest = data[at:]
        return count

    def _take(self, text: str) -> list[Change]:
        there = self._there
        _, _, _, _, payload = self._decode(text)
        joins, leaves = payload["joins"], payload["leaves"]
        changes = []
        for key, entry in joins.items():
            metas = entry["metas"]
            mine = there.get(key)
            if mine is None:
                mine = there[key] = {}
            for meta in metas:
                mine[meta["phx_ref"]] = meta
            changes.append(Change(key, metas, []))
        for key, entry in leaves.items():
            metas = entry["metas"]
            mine = there[key]
            for meta in metas:
                del mine[meta["phx_ref"]]
            if not mine:
                del there[key]
            changes.append(Change(key, [], metas))
        return changes

    def roster(self) -> dict[str, list[str]]:
        return {key: list(metas) for key, metas in self._there.items()}


class Entry(msgspec.Struct, gc=False):
    metas: list[dict[str, Any]]


class Diff(msgspec.Struct, gc=False):
    joins: dict[str, msgspec.Raw]
    leaves: dict[str, msgspec.Raw]


class Undecoded:
    """As the prototype, but what it holds of a user is one object, the JSON as it came: the least memory to
    touch when somebody leaves. It relies on a server that says the same when one leaves as when one came."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(tuple[str | None, str | None, str, str, Diff]).decode
        self._decode_entry = msgspec.json.Decoder(Entry).decode
        self._there: dict[str, bytes] = {}

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._there = {}
        for text in texts:
            *_, event, payload = msgspec.json.decode(
                text, type=tuple[Any, Any, str, str, dict[str, msgspec.Raw]]
            )
            assert event == "presence_state"
            self._there.update((key, bytes(entry)) for key, entry in payload.items())

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts

    def run(self) -> int:
        decode_entry, there = self._decode_entry, self._there
        count = 0
        for text in self._texts:
            *_, diff = self._decode(text)
            changes = []
            for key, entry in diff.joins.items():
                there[key] = bytes(entry)
                changes.append(Change(key, decode_entry(entry).metas, []))
            for key, entry in diff.leaves.items():
                if there[key] == bytes(entry):
                    del there[key]
                changes.append(Change(key, [], decode_entry(entry).metas))
            count += len(changes)
        return count

    def roster(self) -> dict[str, list[str]]:
        return {
            key: [meta["phx_ref"] for meta in self._decode_entry(entry).metas]
            for key, entry in self._there.items()
        }


if __name__ == "__main__":
    kinds: dict[str, Callable[[], MemoryContestant]] = {
        "json": lambda: Decoder(json.loads),
        "msgspec": lambda: Decoder(msgspec.json.decode),
        "inflate": lambda: Inflater(msgspec.json.decode),
        "prototype-text": lambda: Prototype(text=True),
        "prototype-bytes": lambda: Prototype(text=False),
        "undecoded": Undecoded,
    }
    serve(kinds[sys.argv[1]]())
