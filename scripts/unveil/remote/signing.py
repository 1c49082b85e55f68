"""Signatures that servers ask for; none of them is ever logged, cached on disk or recorded."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import requests

from unveil.errors import InputError
from unveil.guarded import NO_JSON
from unveil.remote.http import AGENT, read_bounded, send
from unveil.remote.range_cache import Request, Sign, unsigned

MARGIN = dt.timedelta(minutes=5)
"""A token that ends sooner is renewed before it is used."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_TOKEN_BYTES = 1 << 16


def make_signer(section: Mapping[str, Any], *, profile: str = "") -> Sign:
    """Return what signs the addresses of a catalogue.

    Args:
        section: section ``sign`` of a preset: ``how`` (``none``, ``token`` or ``s3``) and what
            it needs. Signatures go only to hosts that it names: ``hosts`` for tokens (``*``
            stands for any part of a name), ``endpoint`` for S3.
        profile: profile of the shared AWS files with the S3 credentials; empty for those of
            the environment.
    """
    how = section.get("how", "none")
    if how == "token":
        return _Tokens(section["token_url"], section["hosts"])
    if how == "s3":
        return _S3(section, profile)
    return unsigned


class _Tokens:
    """Shared access signatures of Azure storage, as the Planetary Computer hands them out.

    One token serves a container of an account until it ends
    (planetarycomputer.microsoft.com/docs/concepts/sas).
    """

    def __init__(self, token_url: str, hosts: Sequence[str]) -> None:
        self._url, self._hosts, self._lock = token_url, hosts, threading.Lock()
        self._tokens: dict[str, tuple[str, dt.datetime]] = {}

    def __call__(self, href: str, again: bool) -> Request:
        parts = urlsplit(href)
        if not self._is_named(parts):
            return Request(href)
        account = (parts.hostname or "").partition(".")[0]
        container = parts.path.lstrip("/").partition("/")[0]
        url = self._url.format(account=account, container=container)
        with self._lock:
            token, ends = self._tokens.get(url, ("", dt.datetime.min.replace(tzinfo=dt.UTC)))
            if again or ends < dt.datetime.now(dt.UTC) + MARGIN:
                token, ends = self._tokens[url] = _fetch_token(url)
        return Request(f"{href}{'&' if parts.query else '?'}{token}")

    def _is_named(self, parts: SplitResult) -> bool:
        """Tell whether an address may get a token: one of the preset's hosts, not overheard."""
        host = parts.hostname or ""
        private = parts.scheme == "https" or host in LOOPBACK
        return private and any(fnmatchcase(host, pattern) for pattern in self._hosts)


def _fetch_token(url: str) -> tuple[str, dt.datetime]:
    try:
        with requests.Session() as session:
            response = send(session, "GET", url, headers={"User-Agent": AGENT}, timeout=60)
            response.raise_for_status()
            document = json.loads(read_bounded(response, MOST_TOKEN_BYTES))
        ends = dt.datetime.fromisoformat(document["msft:expiry"].replace("Z", "+00:00"))
        return document["token"], ends
    except (requests.RequestException, KeyError, TypeError, *NO_JSON) as error:
        raise InputError(
            f"no access token ({error})",
            file=url,
            field="sign.token_url",
            remedy="check the network; try later",
        ) from error


class _S3:
    """Signature version 4 of S3 (docs.aws.amazon.com, Signature Version 4), by botocore.

    Credentials come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``) or
    a profile of the shared files, as for every S3 client.
    """

    def __init__(self, section: Mapping[str, Any], profile: str) -> None:
        self._endpoint = section["endpoint"].rstrip("/")
        self._region = section.get("region", "us-east-1")
        self._payer, self._profile = section.get("requester_pays", False), profile
        self._lock = threading.Lock()
        self._auth: Callable[[Any], None] | None = None

    def __call__(self, href: str, again: bool) -> Request:
        from botocore.awsrequest import AWSRequest

        parts = urlsplit(href)
        if parts.scheme != "s3":
            return Request(href)
        url = f"{self._endpoint}/{parts.netloc}{quote(parts.path, safe='/~')}"
        headers = {"x-amz-request-payer": "requester"} if self._payer else {}
        request = AWSRequest("GET", url, headers=headers)
        with self._lock:
            if self._auth is None or again:
                self._auth = self._credentials()
            self._auth(request)
        return Request(url, dict(request.headers.items()))

    def _credentials(self) -> Callable[[Any], None]:
        import botocore.session
        from botocore.auth import S3SigV4Auth
        from botocore.exceptions import BotoCoreError

        try:
            session = botocore.session.Session(profile=self._profile or None)
            found = session.get_credentials()
        except BotoCoreError as error:
            raise InputError(
                str(error), field="sources.stac.profile", remedy="name a profile that exists"
            ) from error
        if found is None:
            raise InputError(
                f"{self._endpoint} wants S3 credentials, there are none",
                field="sources.stac.profile",
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or "
                "name a profile of ~/.aws/credentials in the config",
            )
        return S3SigV4Auth(found, "s3", self._region).add_auth
