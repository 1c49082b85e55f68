"""Secrets stay where they are used: what is written down or shown goes through here.

Signatures and keys come in the queries of addresses, as ``user:password@``, and as options and
headers whose names say what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

HIDDEN = "***"
_NAME = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|credentials?|authorization|signature|"
    r"(?:api|access|subscription|account|secret|private)[-_ ]?key)"
)
_WORD = r"[\w.-]{0,40}"  # bounded: what is read may be one word of a megabyte
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\",;&]+)"
_USER = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"<>@]*(?:@[^\s/?#'\"<>@]*)*@", re.IGNORECASE
)
_QUERY = re.compile(r"\?[^\s'\"()<>?]*=[^\s'\"()<>]*")
_SET = re.compile(rf"({_NAME}{_WORD}=)({_VALUE})", re.IGNORECASE)
_OPTION = re.compile(
    rf"((?:(?<=[\s'\"])|^)--?{_WORD}{_NAME}{_WORD}\s+)(?!-)({_VALUE})", re.IGNORECASE
)
_QUOTED = re.compile(
    rf"(['\"]{_WORD}{_NAME}{_WORD}['\"]\s*:\s*)('[^']*'|\"[^\"]*\")", re.IGNORECASE
)
_HEADER = re.compile(r"(\bAuthorization:\s*(?:Bearer |Basic )?)([^\s'\",;]+)", re.IGNORECASE)
_SECRET_KEY = re.compile(rf"{_WORD}{_NAME}{_WORD}", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"x-(amz|goog)-.*|.*(sig|signature|token|secret|passw(or)?d|pwd|credentials?|auth|"
    r"authorization|key|keyid|key-pair-id|googleaccessid|policy)",
    re.IGNORECASE,
)
_OF_SIGNED = re.compile(r"expires|s[ekpst]|s[rv]|ss|srt|spr|sip|sk(oid|tid|t|e|s|v)", re.IGNORECASE)
"""Parameters that only a signature gives a meaning (Azure's, CloudFront's)."""


def redact(text: str) -> str:
    """Return a text without queries of addresses, users in them, and values of key-like names."""
    text = _USER.sub(r"\1", text)
    text = _QUERY.sub("?...", text)
    for pattern in (_SET, _OPTION, _QUOTED, _HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def redact_tree(value: Any) -> Any:
    """Return a JSON-able value, redacted: texts, and whatever a key-like name holds."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _SECRET_KEY.fullmatch(str(key)) else redact_tree(held)
            for key, held in value.items()
        }
    if isinstance(value, Sequence):
        return [redact_tree(held) for held in value]
    return value


def public_address(href: str) -> str:
    """Return an address without user, fragment and what of its query is a signature or a key.

    What is left of the query names the file.

    Raises:
        ValueError: if it is no address.
    """
    parts = urlsplit(href)
    host = parts.netloc.rpartition("@")[2]
    given = [pair for pair in parts.query.split("&") if pair]
    kept = [pair for pair in given if not _SECRET_PARAMETER.fullmatch(_name_of(pair))]
    if len(kept) < len(given):
        kept = [pair for pair in kept if not _OF_SIGNED.fullmatch(_name_of(pair))]
    return urlunsplit((parts.scheme, host, parts.path, "&".join(kept), ""))


def _name_of(pair: str) -> str:
    return unquote(pair.partition("=")[0])
