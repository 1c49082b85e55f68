"""What is meant for one host goes to no other."""

from __future__ import annotations

import datetime as dt

import pytest
import requests
from tests.unit.scripted_server import scripted

from unveil.config import check
from unveil.errors import InputError
from unveil.remote import signing
from unveil.remote.http import read_bounded, send
from unveil.remote.range_cache import RangeCache, Request

SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=K",
    "X-Amz-Security-Token": "T",
    "Ocp-Apim-Subscription-Key": "S",
}
PLAIN = {"Range": "bytes=0-9", "User-Agent": "unveil"}


def moved(target):
    return lambda asked: (302, {"Location": target}, b"")


def get(url, headers):
    with requests.Session() as session:
        session.auth = lambda request: request
        return send(session, "GET", url, headers=headers, timeout=10)


def test_a_redirect_to_another_host_takes_no_credentials_along():
    with scripted(lambda asked: (200, {}, b"x")) as other, scripted(moved(other.url)) as own:
        assert get(f"{own.url}/a.tif?sig=K", {**SIGNED, **PLAIN}).status_code == 200
    assert own.log[0].headers["X-Amz-Security-Token"] == "T"
    assert not set(other.log[0].headers) & set(SIGNED)
    assert other.log[0].headers["Range"] == "bytes=0-9" and "sig" not in other.log[0].path


def test_a_redirect_within_a_host_keeps_them():
    def answer(asked):
        return (302, {"Location": "/b.tif"}, b"") if asked.path == "/a.tif" else (200, {}, b"x")

    with scripted(answer) as own:
        get(f"{own.url}/a.tif", {**SIGNED, **PLAIN})
    assert own.log[1].path == "/b.tif" and set(SIGNED) <= set(own.log[1].headers)


def test_the_cache_follows_redirects_without_its_signature(tmp_path):
    data = bytes(range(256))

    def file(asked):
        return 206, {"Content-Range": f"bytes 0-255/{len(data)}", "ETag": '"1"'}, data

    with scripted(file) as other, scripted(moved(f"{other.url}/b")) as own:
        cache = RangeCache(tmp_path, sign=lambda href, again: Request(f"{href}?sig=K", SIGNED))
        with cache.open(cache.describe(f"{own.url}/a")) as stream:
            assert stream.read() == data
    assert own.log[0].path == "/a?sig=K" and own.log[0].headers["Authorization"]
    assert not set(other.log[0].headers) & set(SIGNED)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//"])
def test_redirects_lead_to_the_web_alone(target):
    with scripted(moved(target)) as own, pytest.raises((requests.RequestException, ValueError)):
        get(f"{own.url}/a.tif", {})


def test_redirects_without_end_are_given_up():
    with scripted(moved("/again")) as own, pytest.raises(requests.TooManyRedirects):
        get(f"{own.url}/a.tif", {})
    assert len(own.log) == 11


def test_a_body_is_bounded_after_unpacking():
    import gzip

    bomb = gzip.compress(bytes(50 << 20))
    assert len(bomb) < 100_000
    with scripted(lambda asked: (200, {"Content-Encoding": "gzip"}, bomb)) as own:
        with pytest.raises(ValueError, match="more than 1 MB"):
            read_bounded(get(own.url, {}), 1 << 20)


# ------------------------------------------------------------------ signatures

TOKENS = {"how": "token", "token_url": "https://tokens.example/{account}/{container}"}


@pytest.mark.parametrize(
    ("href", "signed"),
    [
        ("https://account.blob.core.windows.net/c/a.tif", True),
        ("https://account.blob.core.windows.net.evil.example/c/a.tif", False),
        ("https://evil.example/account.blob.core.windows.net/a.tif", False),
        ("https://account.evil.example/c/a.tif", False),
        ("http://account.blob.core.windows.net/c/a.tif", False),
    ],
)
def test_tokens_go_only_to_hosts_that_the_preset_names(monkeypatch, href, signed):
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    monkeypatch.setattr(signing, "_fetch_token", lambda url: ("sig=K", ends))
    sign = signing.make_signer(TOKENS | {"hosts": ["*.blob.core.windows.net"]})
    assert sign(href, False).url == (f"{href}?sig=K" if signed else href)


@pytest.mark.parametrize("sign", [TOKENS, {"how": "token", "hosts": ["a"]}, {"how": "s3"}])
def test_a_preset_that_names_no_hosts_cannot_sign(sign):
    preset = {
        **{"title": "t", "api": "https://api.example", "collections": ["c"], "kind": "optical"},
        **{"assets": {}, "licence": "l", "attribution": "a", "sign": sign},
    }
    with pytest.raises(InputError, match="mine.yaml.*p.sign"):
        check({"p": preset}, "stac_presets", file="mine.yaml")
