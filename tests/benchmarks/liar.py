"""A contestant that takes everything, and ends in another roster."""

from __future__ import annotations

import json
import sys

for line in sys.stdin:
    print(
        json.dumps({"cpu": 0.001, "events": 0, "digest": "0"} if "run" in json.loads(line) else {}),
        flush=True,
    )
