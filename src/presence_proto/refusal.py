"""What the headers of a refused handshake say: when to come back, and where the server is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from presence_proto.handshake import Headers

MAX_TARGET = 200  # characters of a redirect's target that are shown

# RFC 9110 §5.6.7. The two obsolete forms of a date are not read: no server has sent them for decades.
_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*@)?")  # RFC 3986 §3, with its user info


def retry_after(headers: Headers) -> float | None:
    """Seconds to wait, from `Retry-After` (RFC 9110 §10.2.3); `None` without one that can be understood.

    A date counts from the answer's own `Date`: the core has no wall clock, and ours might be wrong.
    """
    wanted = _first(headers, "retry-after")
    if re.fullmatch(r"[0-9]+", wanted):
        return float(wanted)  # not int, which refuses thousands of digits
    due, sent = _seconds(wanted), _seconds(_first(headers, "date"))
    return None if due is None or sent is None else max(0.0, due - sent)


def redirect_target(headers: Headers) -> str | None:
    """Where `Location` leads, for people: without user info, query and fragment, which may hold secrets."""
    address, question_mark, _ = _first(headers, "location").partition("#")[0].partition("?")
    if not address:
        return None
    address = quote(_AUTHORITY.sub(r"\1//", address, count=1), safe="/%:@!$&'()*+,;=~[]", encoding="latin-1")
    return address[:MAX_TARGET] + ("?…" if question_mark else "")


def _first(headers: Headers, wanted: str) -> str:
    return next((value for name, value in headers if name == wanted), "")


def _seconds(date: str) -> float | None:
    """A date of HTTP, in seconds from an epoch of our own; `None` for what is not one."""
    match = _DATE.fullmatch(date)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[number]) for number in (1, 3, 4, 5, 6))
    # The Gregorian calendar, with years that begin in March, so that a leap day is the last of its year.
    years, month = divmod(year * 12 + _MONTHS.index(match[2]) - 2, 12)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * month + 2) // 5 + day
    return float(((days * 24 + hour) * 60 + minute) * 60 + second)
