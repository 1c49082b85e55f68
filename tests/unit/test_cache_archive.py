"""Fetched bytes in an archive: what a scene asked for goes in, and comes out as it was."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.plain_server import serve

from unveil.errors import InputError
from unveil.remote import cache_archive, range_cache
from unveil.remote.cache_archive import pack_fetched, take_fetched
from unveil.remote.range_cache import RangeCache, Remote, digest_of, merge, total

DATA = np.random.default_rng(4).bytes(3_000_000)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("a.bin", "b.bin"):
        (tmp_path / "files" / name).write_bytes(DATA)
    with serve(tmp_path / "files") as server:
        yield server


@pytest.fixture
def archive(server, tmp_path):
    """Return an archive of spans of two files, which other scenes have read more of."""
    others = RangeCache(tmp_path / "here")
    remotes = [others.describe(f"{server.url}/{name}.bin") for name in "ab"]
    others.fetch({remotes[0]: [(100_000, 200_000)]}, name="others")
    cache = RangeCache(tmp_path / "here")
    cache.fetch({remotes[0]: [(0, 50_000), (150_000, 1_600_000)]}, name="mine")
    with cache.open(remotes[1]) as file:
        file.seek(2_999_000)
        file.read()
    pack_fetched(tmp_path / "a.tar", [cache])
    server.log.clear()
    return tmp_path / "a.tar", remotes


WANTED = [(0, 50_000), (150_000, 1_600_000)]


def read(cache: RangeCache, remote: Remote, start: int, end: int) -> bytes:
    with cache.open(remote) as file:
        file.seek(start)
        return file.read(end - start)


def test_bytes_come_out_of_an_archive_without_asking_the_server(archive, server, tmp_path):
    path, (first, second) = archive
    take_fetched(path, tmp_path / "there")
    cache = RangeCache(tmp_path / "there")
    for start, end in WANTED:
        assert read(cache, first, start, end) == DATA[start:end]
    assert read(cache, second, 2_999_000, 3_000_000) == DATA[2_999_000:]
    assert not server.log


def test_an_archive_holds_what_this_scene_asked_for_and_little_else(archive, tmp_path):
    path, (first, _) = archive
    take_fetched(path, tmp_path / "there")
    cache = RangeCache(tmp_path / "there")
    assert cache.missing(first, [(100_000, 150_000)]) == [(100_000, 150_000)]
    assert path.stat().st_size < total(WANTED) + range_cache.HEADER + 20_000


def test_taking_twice_keeps_the_bytes_once(archive, tmp_path):
    path, _ = archive
    take_fetched(path, tmp_path / "there")
    journals = {p: p.read_bytes() for p in (tmp_path / "there").glob("*/*/journal")}
    take_fetched(path, tmp_path / "there")
    assert journals == {p: p.read_bytes() for p in (tmp_path / "there").glob("*/*/journal")}


def test_a_damaged_piece_is_left_out_and_comes_from_the_server(archive, server, tmp_path, caplog):
    path, (first, _) = archive
    data = bytearray(path.read_bytes())
    data[data.index(DATA[1_500_000:1_500_100])] ^= 1
    path.write_bytes(data)
    take_fetched(path, tmp_path / "there")
    assert "a piece is damaged" in caplog.text
    cache = RangeCache(tmp_path / "there")
    assert read(cache, first, 150_000, 1_600_000) == DATA[150_000:1_600_000]
    asked = [(row.start, row.end) for row in server.log]
    assert merge(asked)[0][0] <= 1_500_000 < merge(asked)[-1][1]
    assert total(asked) <= range_cache.CHUNK + 2 * range_cache.HEADER


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_archive_that_is_cut_off_gives_what_it_has(archive, server, tmp_path, caplog, share):
    path, (first, _) = archive
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    take_fetched(path, tmp_path / "there")
    assert "what is missing is fetched again" in caplog.text
    cache = RangeCache(tmp_path / "there")
    assert read(cache, first, 150_000, 1_600_000) == DATA[150_000:1_600_000]
    moved = total([(row.start, row.end) for row in server.log])
    assert moved < total(WANTED) * (1 - share) + range_cache.CHUNK + 2 * range_cache.HEADER


ABOUT = {"href": "http://127.0.0.1:1/a.bin", "size": 100, "validator": ""}
PIECE = f"1/0-{digest_of(b'x')}"


@pytest.mark.parametrize(
    "members",
    [
        [("1/about.json", b"[]")],
        [("1/about.json", b"{")],
        [("1/about.json", json.dumps({**ABOUT, "size": 2**62}).encode())],
        [("1/about.json", json.dumps({**ABOUT, "size": "x"}).encode())],
        [("1/about.json", json.dumps({**ABOUT, "href": 3}).encode())],
        [("1/about.json", json.dumps({**ABOUT, "more": 3}).encode())],
        [(PIECE, b"x")],
        [("1/about.json", json.dumps(ABOUT).encode()), ("1/../../x", b"x")],
        [
            ("1/about.json", json.dumps(ABOUT).encode()),
            (PIECE.replace("/0-", "/999999-"), b"x"),
        ],
        [("1/about.json", json.dumps(ABOUT).encode()), (PIECE, bytes(cache_archive.CHUNK + 1))],
    ],
)
def test_an_archive_that_is_none_is_left_aside_with_a_warning(tmp_path, caplog, members):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    take_fetched(tmp_path / "bad.tar", tmp_path / "cache")
    assert "bad.tar" in caplog.text and "fetched again" in caplog.text
    assert RangeCache(tmp_path / "cache").missing(Remote(**ABOUT), [(0, 100)]) == [(0, 100)]
    assert {p.name for p in tmp_path.iterdir()} == {"bad.tar", "cache"}


def test_links_of_an_archive_are_not_followed(tmp_path, caplog):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo("1/about.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    take_fetched(tmp_path / "bad.tar", tmp_path / "cache")
    assert "is no piece of a file" in caplog.text


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    archive, tmp_path, monkeypatch
):
    path, _ = archive
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(InputError, match=r"there.*field 'cache'.*are free"):
        take_fetched(path, tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


spans = st.lists(
    st.tuples(st.integers(0, 2_999_998), st.integers(1, 300_000)).map(
        lambda s: (s[0], min(sum(s), len(DATA)))
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(spans)
def test_any_spans_make_the_way_there_and_back(wanted):
    remote = Remote("http://127.0.0.1:1/a.bin", len(DATA), '"1"')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here = RangeCache(folder / "here")
        here.keep(remote, [(0, DATA)])
        here.note(remote, wanted)
        pack_fetched(folder / "a.tar", [here])
        take_fetched(folder / "a.tar", folder / "there")
        there = RangeCache(folder / "there", retries=0)
        assert not there.missing(remote, merge(wanted))
        with there.open(remote) as file:
            for start, end in wanted:
                file.seek(start)
                assert file.read(end - start) == DATA[start:end]
