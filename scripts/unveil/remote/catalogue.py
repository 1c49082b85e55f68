"""Asking a STAC API, and which of the items that it answers can be used at all.

An answer is what a stranger says: its size, its pages and its types are bounded here, so that
those who read items meet text where there should be text. What an item means is for others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any
from urllib.parse import urlsplit

import requests
from pystac import Link
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from unveil.config import check
from unveil.errors import InputError, one_line
from unveil.remote.http import AGENT, read_bounded, send

MOST_PAGE_BYTES = 64 * 2**20
"""A page of 100 items with all their assets has 2 MB."""
MOST_ITEMS = 10_000
MOST_POINTS = 2_000
"""Points of a footprint; those of ESA's products have up to a few hundred."""


def ask_catalogue(api: str, query: Mapping[str, Any], *, retries: int, timeout: float) -> list[Any]:
    """Return the items that a STAC API answers, as they come.

    Args:
        api: address of the API.
        query: arguments of :meth:`pystac_client.Client.search`.
        retries: failures in a row after which to give up.
        timeout: seconds without an answer after which a request is given up.

    Raises:
        InputError: if it does not answer, or without end.
    """
    retry = Retry(
        total=retries,
        backoff_factor=1,
        backoff_jitter=1,
        status_forcelist=(408, 425, 429, 500, 502, 503, 504),
        allowed_methods=None,
        respect_retry_after_header=True,
    )
    try:
        client = Client.open(api, stac_io=_BoundedIO(max_retries=retry, timeout=timeout))
        items: list[Any] = []
        for page in client.search(**query).pages_as_dicts():
            items += page["features"]
            if len(items) > MOST_ITEMS:
                raise ValueError(f"more than {MOST_ITEMS:,} items")
        return items
    except Exception as error:
        raise InputError(
            f"the search failed ({one_line(str(error))[:300] or type(error).__name__})",
            file=api,
            field="api",
            remedy="check network and address; try later, ask for fewer days, or use another "
            "preset",
        ) from error


class _BoundedIO(StacApiIO):
    """Reads pages of an API: of the web alone, each once, none without end."""

    def __init__(self, *, max_retries: Retry, timeout: float) -> None:
        super().__init__(max_retries=max_retries, timeout=timeout)
        self._seconds, self._asked = timeout, set[str]()

    def read_text(self, source: Link | str | PathLike[str], *args: Any, **kwargs: Any) -> str:
        href = source.href if isinstance(source, Link) else str(source)
        if urlsplit(href).scheme not in ("http", "https"):  # the library would open a local file
            raise APIError(f"{href!r} is no address of the web")
        return super().read_text(source, *args, **kwargs)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        posts = method == "POST"
        page = json.dumps([method, href, parameters], sort_keys=True, default=str)
        if page in self._asked:
            raise APIError("its pages lead in a circle")
        self._asked.add(page)
        url = href if posts else requests.Request("GET", href, params=parameters).prepare().url
        response = send(
            self.session,
            "POST" if posts else "GET",
            str(url),
            headers={"User-Agent": AGENT},  # not those that a link asks for
            json=parameters if posts else None,
            timeout=self._seconds,
        )
        with response:
            text = read_bounded(response, MOST_PAGE_BYTES).decode("utf-8", "replace")
            if not response.ok:
                raise APIError(f"{response.status_code} {response.reason}: {text}")
            return text

    def json_loads(self, txt: str, *_: Any, **__: Any) -> dict[str, Any]:
        # NaN and its kin are no JSON, and would pass all comparisons.
        document = json.loads(txt, parse_constant=lambda _: None)
        if not isinstance(document, dict):
            raise APIError(f"answered {type(document).__name__} instead of an object")
        return document


def require_usable(item: Any) -> None:
    """Check the types of what is read of an item, and that its footprint is one.

    Raises:
        InputError: naming the field, and what was found.
    """
    check(item, "stac_item", file=name_of(item))
    if item.get("geometry"):
        _require_few_points(item)


def name_of(item: Any) -> str:
    """Return the id of what should be an item, for messages."""
    return one_line(str(item.get("id")))[:100] if isinstance(item, dict) else "no item"


def _require_few_points(item: Mapping[str, Any]) -> None:
    waiting, points = [item["geometry"].get("coordinates")], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            points += not any(isinstance(each, list) for each in part)
            waiting += part
        if points > MOST_POINTS or len(waiting) > 4 * MOST_POINTS:
            raise InputError(
                f"a footprint of more than {MOST_POINTS:,} points",
                file=name_of(item),
                field="geometry",
                remedy="none; tell the catalogue's keeper",
            )
