"""What is a secret, and how it is hidden. No other module decides that.

A secret is a credential: an api key, an access token, a password, what stands in a header or a parameter with
the name of one. Other parameters, headers and words are not, whatever their length.

A secret is hidden where people look: in reprs, log lines, recordings and texts for people. What a program
reads stays as the server sent it: payloads, replies, their statuses and responses. The protocol is
interpreted before anything is hidden.
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
"""What stands for a secret in a text for people."""

MIN_SECRET = 8
"""Characters. A shorter secret is not looked for in texts: it occurs in ordinary words by chance."""

MAX_TEXT = 200
"""Characters of a server's words in a text for people."""

MAX_CODED = 4096
"""Characters. A longer secret is looked for as it is and in JSON: the other forms take long to make."""

MAX_TOKENS = 16
"""Access tokens of one client that are hidden: the newest."""

BEARER_PREFIX = "base64url.bearer."
"""A subprotocol that begins like this carries a token after its last dot."""

_PUNCTUATION = re.compile(r"[^0-9A-Za-z]+")
_NAMES = frozenset({"auth", "bearer", "credentials", "pass", "pwd", "sig"})
_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "jwt", "cookie"),
    *("apikey", "accesskey", "privatekey", "secretkey", "servicekey", "subscriptionkey"),
    *("authorization", "credential", "signature"),
)
_AUTHORIZATION = re.compile(r"([A-Za-z][\w-]*[ \t]+)(.+)", re.DOTALL)  # a scheme and its credential
# Of a cookie, or of a scheme such as Digest. Base64 ends with "=", too, and is no pair.
_PAIRS = re.compile(r"[\w.-]+=[^\s;,=][^\s;,]*([;,]\s*[\w.-]+=[^\s;,=][^\s;,]*)*;?")
_PAIR = re.compile(r"([\w.-]+=\"?)([^\s;,\"]*)")


def is_secret_name(name: str) -> bool:
    """Whether a parameter, a header or a JSON field of this name holds a secret.

    `access_token`, `X-Api-Key`, `Authorization`, `Set-Cookie` and `clientSecret` do; `user_id` and
    `presence_key` do not.
    """
    plain = _PUNCTUATION.sub("", name).lower()
    return plain in _NAMES or plain.endswith(_ENDINGS)


def header_pieces(name: str, value: str) -> Iterator[tuple[str, bool]]:
    """The value of a header in pieces, and whether each is a secret.

    Of `Bearer abc` that is `abc`, of the cookie `sid=abc; theme=dark` it is both values.
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
    """The secrets in the value of a header."""
    return [piece for piece, is_secret in header_pieces(name, value) if is_secret]


def subprotocol_secrets(name: str) -> list[str]:
    """The token that a subprotocol carries, as it is encoded, if it carries one."""
    return [name.rpartition(".")[2]] if name.startswith(BEARER_PREFIX) else []


def hide_subprotocols(names: object) -> str:
    """The repr of subprotocols, without the tokens in them."""
    if not isinstance(names, tuple):
        return HIDDEN
    shown = [
        name.rpartition(".")[0] + "." + HIDDEN if name.startswith(BEARER_PREFIX) else name for name in names
    ]
    return repr(tuple(shown))


_URL_SAFE = str.maketrans("+/", "-_")


def forms(secret: str) -> set[str]:
    """The ways in which a text may write a secret: plain, in JSON, percent-encoded, in base64."""
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    if len(secret) > MAX_CODED:
        return {secret, *escaped}
    encoded = {quote(secret, errors="surrogatepass"), quote(secret, safe="", errors="surrogatepass")}
    encoded.add(quote_plus(secret, errors="surrogatepass"))
    encoded |= {re.sub("%..", lambda code: code[0].lower(), one) for one in encoded}
    base64 = b64encode(secret.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()
    return {secret, *encoded, *escaped, base64, base64.translate(_URL_SAFE)}


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` without these secrets, in any of their forms."""
    # No form is shorter than its secret, which a stranger may have made as long as a message.
    return Credentials(secret for secret in secrets if len(secret) <= len(text)).hide(text)


class Credentials:
    """The credentials of one client: those of its settings, and the access tokens that it has used."""

    __slots__ = ("_fixed", "_long", "_pattern", "_tokens")

    def __init__(self, fixed: Iterable[str] = ()) -> None:
        self._fixed = tuple(fixed)
        self._tokens: dict[str, None] = {}  # the newest last
        self._pattern: re.Pattern[str] | None = None  # of the forms; compiled when it is needed first
        self._long: list[str] = []  # those that are no matter of a pattern: it would take seconds to compile

    def add(self, token: str | None) -> None:
        """Hide this access token, too, from now on. The server may still quote those before it."""
        if token is not None:
            self._tokens.pop(token, None)
            self._tokens[token] = None
            if len(self._tokens) > MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._pattern = None

    def hide(self, text: str) -> str:
        """`text` for people: each credential is replaced by `…`. Shorter ones than `MIN_SECRET` stay."""
        if self._pattern is None:
            secrets = [one for one in (*self._fixed, *self._tokens) if len(one) >= MIN_SECRET]
            found = {form for secret in secrets for form in forms(secret)}
            # The longest first: a secret may begin with another one. "(?!)" matches nothing.
            longest_first = sorted(found, key=lambda form: (-len(form), form))
            longest = 4 * MAX_CODED  # of what a pattern holds
            self._long = [form for form in longest_first if len(form) > longest]
            self._pattern = re.compile("|".join(map(re.escape, longest_first[len(self._long) :])) or "(?!)")
        for form in self._long:
            text = text.replace(form, HIDDEN)
        return self._pattern.sub(HIDDEN, text)

    def quote(self, text: str) -> str:
        """The same, cut off after `MAX_TEXT` characters: no part of a credential is left at the end."""
        return self.hide(text)[:MAX_TEXT]
