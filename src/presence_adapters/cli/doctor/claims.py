"""What stands in a JWT, read without a key: nothing is verified here, that is the server's to do."""

from __future__ import annotations

from typing import Any

import jwt

from presence_adapters.cli.doctor.facts import Claims


def claims_of(token: str | None) -> Claims:
    """What a JWT says about itself. Nothing, if it is none."""
    try:
        payload = jwt.decode(token or "", options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return Claims()
    starts = [time for name in ("iat", "nbf") if (time := _number(payload.get(name))) is not None]
    ref = payload.get("ref")
    return Claims(
        _number(payload.get("exp")), max(starts, default=None), ref if isinstance(ref, str) else None
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
