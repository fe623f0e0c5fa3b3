"""Presence as phoenix.js has it, in the plainest words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from presence_entries import Entries


class Model:
    """`Presence` of phoenix.js 1.8.16, but for two things: no ref is held twice, and no key without metas."""

    def __init__(self) -> None:
        self.state: Entries = {}

    def sync_state(self, new: Entries) -> None:
        joins, leaves = {}, {}
        for key, present in self.state.items():
            if key not in new:
                leaves[key] = present
        for key, present in new.items():
            if key in self.state:
                held = {meta["phx_ref"] for meta in self.state[key]["metas"]}
                sent = {meta["phx_ref"] for meta in present["metas"]}
                joined = [meta for meta in present["metas"] if meta["phx_ref"] not in held]
                left = [meta for meta in self.state[key]["metas"] if meta["phx_ref"] not in sent]
                if joined:
                    joins[key] = {**present, "metas": joined}
                if left:
                    leaves[key] = {**self.state[key], "metas": left}
            else:
                joins[key] = present
        self.sync_diff(deepcopy({"joins": joins, "leaves": leaves}))

    def sync_diff(self, diff: dict[str, Entries]) -> None:
        for key, present in diff["joins"].items():
            joined = {meta["phx_ref"] for meta in present["metas"]}
            current = self.state.get(key, {"metas": []})["metas"]
            kept = [meta for meta in current if meta["phx_ref"] not in joined]
            self.state[key] = {**present, "metas": kept + without_twins(present["metas"])}
        for key, present in diff["leaves"].items():
            if key in self.state:
                left = {meta["phx_ref"] for meta in present["metas"]}
                current = self.state[key]["metas"]
                self.state[key]["metas"] = [meta for meta in current if meta["phx_ref"] not in left]
        self.state = {key: present for key, present in self.state.items() if present["metas"]}


def without_twins(metas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        meta
        for index, meta in enumerate(metas)
        if meta["phx_ref"] not in [later["phx_ref"] for later in metas[index + 1 :]]
    ]
