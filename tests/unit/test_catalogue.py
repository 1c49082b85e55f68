"""A catalogue that lies: its size, its pages and its types are bounded; what is good goes on."""

from __future__ import annotations

import copy
import gzip
import json
import tracemalloc

import pytest
from tests.unit.scripted_server import scripted

from unveil.errors import InputError
from unveil.remote import catalogue
from unveil.remote.catalogue import ask_catalogue, require_usable

RING = [[2, 50], [4, 50], [4, 52], [2, 52], [2, 50]]
ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "good",
    "collection": "sentinel-2-l2a",
    "geometry": {"type": "Polygon", "coordinates": [RING]},
    "bbox": [2, 50, 4, 52],
    "links": [],
    "properties": {"datetime": "2024-06-01T10:00:00Z"},
    "assets": {"blue": {"href": "https://h.example/x.tif"}},
}
POST = {"type": "application/geo+json", "method": "POST"}
QUERY = {"collections": ["sentinel-2-l2a"], "datetime": "2024-06-01/2024-06-30", "limit": 100}


def page(*links, features=(ITEM,)):
    return {"type": "FeatureCollection", "features": list(features), "links": list(links)}


def api(search, *, url=None):
    """Answer a landing page, and searches by a function of the request and the address."""

    def answer(asked):
        base = f"http://{asked.headers['Host']}"
        if asked.path == "/":
            root = {
                **{"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "d"},
                "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"],
                "links": [
                    {"rel": "self", "href": base},
                    {"rel": "root", "href": base},
                    {"rel": "search", "href": f"{base}/search"} | POST,
                ],
            }
            return 200, {"Content-Type": "application/json"}, json.dumps(root).encode()
        found = search(asked, base)
        if isinstance(found, tuple):
            return found
        return 200, {"Content-Type": "application/geo+json"}, json.dumps(found).encode()

    return answer


def ask(server):
    return ask_catalogue(server.url, QUERY, retries=0, timeout=10)


def test_pages_are_read_to_the_last():
    def search(asked, base):
        if asked.path == "/search":
            return page({"rel": "next", "href": f"{base}/2?token=x", "method": "GET"})
        return page(features=[ITEM | {"id": "second"}])

    with scripted(api(search)) as server:
        assert [item["id"] for item in ask(server)] == ["good", "second"]
    assert json.loads(server.log[1].body)["limit"] == 100


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (lambda asked, base: page({"rel": "next", "href": f"{base}/n"}), "in a circle"),
        (
            lambda asked, base: page(
                {"rel": "next", "href": f"{base}/search", "method": "POST", "body": {"a": 1}}
            ),
            "in a circle",
        ),
        (
            lambda asked, base: page({"rel": "next", "href": f"{base}/{asked.path[1:]}1"}),
            "more than 3 items",
        ),
        (lambda asked, base: page({"rel": "next", "href": "file:///etc/hosts"}), "no address"),
        (lambda asked, base: page({"rel": "next", "href": "/dev/zero"}), "no address"),
        (lambda asked, base: page({"rel": "next"}), "the search failed"),
        (lambda asked, base: page({"href": f"{base}/n"}), "the search failed"),
        (lambda asked, base: [1, 2], "list instead of an object"),
        (lambda asked, base: (200, {}, b"[" * 100_000), "the search failed"),
        (lambda asked, base: (302, {"Location": "/search"}, b""), "the search failed"),
        (lambda asked, base: (500, {}, b"trouble"), "500"),
    ],
)
def test_an_answer_without_end_or_sense_stops_the_search_with_one_line(monkeypatch, search, words):
    monkeypatch.setattr(catalogue, "MOST_ITEMS", 3)
    with scripted(api(search)) as server, pytest.raises(InputError, match=words) as caught:
        ask(server)
    assert "\n" not in str(caught.value) and "Remedy" in str(caught.value)


def test_a_gigabyte_of_json_from_a_few_megabytes_of_gzip_is_not_unpacked():
    blanks = gzip.compress(b" " * (64 << 20), compresslevel=1)  # members follow each other
    bomb = gzip.compress(b'{"features": [') + 16 * blanks
    assert len(bomb) < 8 << 20

    def search(asked, base):
        return 200, {"Content-Encoding": "gzip"}, bomb

    with scripted(api(search)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match="more than 64 MB"):
                ask(server)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 300 << 20


def changed(path, value):
    item = copy.deepcopy(ITEM)
    *parents, last = path
    part = item
    for key in parents:
        part = part[key]
    part[last] = value
    return item


def circle(points):
    return [[[2 + n / points, 50 + n % 2] for n in range(points)]]


@pytest.mark.parametrize(
    "item",
    [
        None,
        7,
        "item",
        [],
        {},
        changed(["id"], 7),
        changed(["id"], "a" * 10_000),
        changed(["properties"], None),
        changed(["properties", "datetime"], 20240601),
        changed(["properties", "datetime"], {"a": 1}),
        changed(["properties", "eo:cloud_cover"], "cloudy"),
        changed(["properties", "eo:cloud_cover"], -3),
        changed(["properties", "sat:relative_orbit"], [1]),
        changed(["properties", "sat:relative_orbit"], "first"),
        changed(["properties", "proj:epsg"], {"a": 1}),
        changed(["geometry"], "POINT (1 2)"),
        changed(["geometry"], {"type": "Polygon"}),
        changed(["geometry"], {"type": "Polygon", "coordinates": None}),
        changed(["geometry"], {"type": "Point", "coordinates": [1, 2]}),
        changed(["geometry", "coordinates"], circle(200_000)),
        changed(["assets"], None),
        changed(["assets"], ["blue"]),
        changed(["assets", "blue"], None),
        changed(["assets", "blue", "href"], 7),
        changed(["assets", "blue", "raster:bands"], [None]),
        changed(["assets", "blue", "raster:bands"], [{"scale": 1e-320, "offset": 1}]),
        changed(["links"], [None]),
        changed(["links"], [{"rel": "self", "href": 7}]),
    ],
)
def test_an_item_of_odd_types_is_unusable_and_says_why(item):
    with pytest.raises(InputError, match="Remedy"):
        require_usable(item)


def test_a_good_item_is_usable_with_whatever_else_it_holds():
    require_usable(ITEM)
    require_usable(changed(["geometry"], None))
    require_usable(changed(["properties", "sat:relative_orbit"], "51"))
    require_usable(ITEM | {"else": {"deep": [None, {"er": 1}]}})
