"""What stands in a JWT, as the diagnosis asks for it."""

from __future__ import annotations

from presence_adapters.access_tokens import time_claim, unverified_claims
from presence_adapters.cli.doctor.facts import Claims


def claims_of(token: str | None) -> Claims:
    """What a JWT says about itself. Nothing, if it is none."""
    claims = unverified_claims(token or "")
    starts = [time for name in ("iat", "nbf") if (time := time_claim(claims, name)) is not None]
    ref = claims.get("ref")
    return Claims(time_claim(claims, "exp"), max(starts, default=None), ref if isinstance(ref, str) else None)
