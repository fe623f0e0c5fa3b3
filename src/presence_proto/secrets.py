"""The rules for secrets: which values are secrets, and how to hide secrets. No other module has such rules.

A secret is a credential: an API key, an access token, a password, or the value of a header or parameter with
a name for credentials. Other parameters, headers and words are not secrets, regardless of length.

Secrets are hidden in human-readable text: reprs, log lines, recordings and reasons. Data for programs stays
unchanged: payloads, and the statuses and responses of replies. Protocol code interprets messages before
secrets are hidden.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "…"
"""The text that replaces a secret in human-readable text."""

MIN_SECRET = 8
"""Shortest secret to search for in texts, in characters. Shorter secrets may occur in words by chance."""

MAX_TEXT = 200
"""Longest quotation of a server's text in a human-readable text, in characters."""

MAX_CODED = 4096
"""Longest secret to search for in all forms, in characters. Longer secrets are searched for only unencoded
and as JSON, because the other forms take long to create."""

MAX_TOKENS = 16
"""The number of access tokens of one client that are hidden. The newest tokens are hidden."""

BEARER_PREFIX = "base64url.bearer."
"""The prefix of a subprotocol that carries a token after the last dot of the subprotocol."""

_PUNCTUATION = re.compile(r"[^0-9A-Za-z]+")
_NAMES = frozenset({"auth", "bearer", "credentials", "pass", "pwd", "sig"})
_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "jwt", "cookie"),
    *("apikey", "accesskey", "privatekey", "secretkey", "servicekey", "subscriptionkey"),
    *("authorization", "credential", "signature"),
)
_AUTHORIZATION = re.compile(r"([A-Za-z][\w-]*[ \t]+)(.+)", re.DOTALL)  # a scheme and a credential
# The pairs of a cookie, or of a scheme such as Digest. Base64 text may end with "=", but is not a pair.
_PAIRS = re.compile(r"[\w.-]+=[^\s;,=][^\s;,]*([;,]\s*[\w.-]+=[^\s;,=][^\s;,]*)*;?")
_PAIR = re.compile(r"([\w.-]+=\"?)([^\s;,\"]*)")


def is_secret_name(name: str) -> bool:
    """Whether a parameter, a header or a JSON field with the name `name` holds a secret.

    `access_token`, `X-Api-Key`, `Authorization`, `Set-Cookie` and `clientSecret` hold secrets. `user_id` and
    `presence_key` do not hold secrets.
    """
    plain = _PUNCTUATION.sub("", name).lower()
    return plain in _NAMES or plain.endswith(_ENDINGS)


def header_pieces(name: str, value: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a header's value. Each piece has a flag that is true if the piece is a secret.

    The secret in `Bearer abc` is `abc`. In the cookie `sid=abc; theme=dark`, both values are secrets.
    """
    if not is_secret_name(name):
        yield value, False
        return
    match = _AUTHORIZATION.fullmatch(value)
    scheme, credential = match.groups() if match else ("", value)
    yield scheme, False
    if not ((scheme or name.lower().endswith("cookie")) and _PAIRS.fullmatch(credential)):
        yield credential, True
        return
    at = 0
    for pair in _PAIR.finditer(credential):
        yield credential[at : pair.start(2)], False
        yield pair[2], True
        at = pair.end()
    yield credential[at:], False


def header_secrets(name: str, value: str) -> list[str]:
    """Return the secrets in the value of a header."""
    return [piece for piece, is_secret in header_pieces(name, value) if is_secret]


def subprotocol_secrets(name: str) -> list[str]:
    """Return the encoded token that a subprotocol carries, as a list of at most one string."""
    return [name.rpartition(".")[2]] if name.startswith(BEARER_PREFIX) else []


def hide_subprotocols(names: object) -> str:
    """Return the repr of subprotocols, with the tokens hidden."""
    if not isinstance(names, tuple):
        return HIDDEN
    shown = [
        name.rpartition(".")[0] + "." + HIDDEN if name.startswith(BEARER_PREFIX) else name for name in names
    ]
    return repr(tuple(shown))


_URL_SAFE = str.maketrans("+/", "-_")


def forms(secret: str) -> set[str]:
    """Return the forms in which a text may contain a secret: unencoded, JSON, percent-encoded, base64."""
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    if len(secret) > MAX_CODED:
        return {secret, *escaped}
    encoded = {quote(secret, errors="surrogatepass"), quote(secret, safe="", errors="surrogatepass")}
    encoded.add(quote_plus(secret, errors="surrogatepass"))
    encoded |= {re.sub("%..", lambda code: code[0].lower(), one) for one in encoded}
    base64 = b64encode(secret.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()
    return {secret, *encoded, *escaped, base64, base64.translate(_URL_SAFE)}


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with all forms of `secrets` hidden."""
    # Skip secrets longer than the text: no form of a secret is shorter than the secret. An unknown client's
    # secret may be as long as a message, and the forms of a long secret take long to create.
    return Credentials(secret for secret in secrets if len(secret) <= len(text)).hide(text)


class Credentials:
    """The credentials of one client: the credentials in the settings, and the latest access tokens."""

    __slots__ = ("_fixed", "_long", "_pattern", "_tokens")

    def __init__(self, fixed: Iterable[str] = ()) -> None:
        self._fixed = tuple(fixed)
        self._tokens: dict[str, None] = {}  # the newest last
        self._pattern: re.Pattern[str] | None = None  # matches all short forms; compiled on first use
        self._long: list[str] = []  # forms too long for the pattern, which would take seconds to compile

    def add(self, token: str | None) -> None:
        """Hide `token` from now on. Earlier tokens stay hidden, because the server may quote them."""
        if token is not None:
            self._tokens.pop(token, None)
            self._tokens[token] = None
            if len(self._tokens) > MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._pattern = None

    def hide(self, text: str) -> str:
        """Return `text` with `…` in place of each credential of at least `MIN_SECRET` characters."""
        if self._pattern is None:
            secrets = [one for one in (*self._fixed, *self._tokens) if len(one) >= MIN_SECRET]
            found = {form for secret in secrets for form in forms(secret)}
            # Longest first, because one secret may be a prefix of another secret. "(?!)" matches nothing.
            longest_first = sorted(found, key=lambda form: (-len(form), form))
            longest = 4 * MAX_CODED  # maximum length of a form in the pattern, in characters
            self._long = [form for form in longest_first if len(form) > longest]
            self._pattern = re.compile("|".join(map(re.escape, longest_first[len(self._long) :])) or "(?!)")
        for form in self._long:
            text = text.replace(form, HIDDEN)
        return self._pattern.sub(HIDDEN, text)

    def quote(self, text: str) -> str:
        """Return `text` with credentials hidden by `hide`, then cut after `MAX_TEXT` characters.

        Credentials are hidden before the cut, so that the cut leaves no part of a credential.
        """
        return self.hide(text)[:MAX_TEXT]
