"""`presence_proto.connection`: Retry-After and Location."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from string import printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.connection import MAX_TARGET, redirect_target, retry_after

YEARS = st.datetimes(datetime(1, 3, 1), datetime(9999, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


@given(YEARS, YEARS)
def test_a_date_counts_from_the_answers_own(sent: datetime, due: datetime) -> None:
    headers = (
        ("date", format_datetime(sent, usegmt=True)),
        ("retry-after", format_datetime(due, usegmt=True)),
    )
    assert retry_after(headers) == max(0.0, (due - sent).total_seconds())


def test_each_day_is_a_day_long() -> None:
    day = datetime(1999, 12, 30, tzinfo=UTC)
    for _ in range(800):
        following = day + timedelta(days=1)
        dates = [format_datetime(one, usegmt=True) for one in (day, following)]
        assert retry_after((("date", dates[0]), ("retry-after", dates[1]))) == 86400
        day = following


@given(st.integers(0, 10**20))
def test_seconds(seconds: int) -> None:
    assert retry_after((("x", "1"), ("retry-after", str(seconds)))) == float(seconds)


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "1.5", "\xb2", "1e3", " 1", "0x10", "in 5 s"),
        *("Sun, 06 Now 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET", "Sunday, 06-Nov-94 08:49:37 GMT"),
    ],
)
def test_what_is_not_understood_is_passed_over(value: str) -> None:
    assert retry_after((("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", value))) is None
    assert retry_after((("date", value), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"))) is None


def test_the_first_header_counts() -> None:
    assert retry_after((("retry-after", "3"), ("retry-after", "5"))) == 3.0


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_whatever_a_server_says_raises_nothing_and_is_printable(text: str) -> None:
    retry_after((("retry-after", text), ("date", text)))
    target = redirect_target((("location", text),))
    assert target is None or (set(target) <= {*printable[:95], "…"} and len(target) <= MAX_TARGET + 2)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("wss://host.test:8443/a/websocket", "wss://host.test:8443/a/websocket"),
        ("https://[2001:db8::1]/a", "https://[2001:db8::1]/a"),
        ("//u:s3cr3t@host.test/@here", "//host.test/@here"),
        ("https://s3cr3t@host.test?next=//s3cr3t@x", "https://host.test?…"),
        ("https://a:b@s3cr3t@host.test/", "https://host.test/"),
        ("/path/@me?token=s3cr3t#s3cr3t", "/path/@me?…"),
        ("/caf\xe9\x9b", "/caf%E9%9B"),
        ("#s3cr3t", None),
        ("", None),
    ],
)
def test_a_target_is_shown_without_what_may_be_secret(location: str, shown: str | None) -> None:
    assert redirect_target((("location", location),)) == shown


def test_a_long_target_is_cut() -> None:
    assert redirect_target((("location", "/" + "x" * 5000 + "?a=b"),)) == "/" + "x" * 199 + "?…"
