"""Byte ranges on disk: what is finished is never asked for again, whatever goes wrong between."""

from __future__ import annotations

import errno
import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.stac_servers import Fault, Proxy
from tests.unit.plain_server import serve

from unveil.errors import InputError
from unveil.remote import range_cache
from unveil.remote.range_cache import (
    RangeCache,
    Remote,
    Request,
    merge,
    run_parallel,
    subtract,
    total,
)

DATA = np.random.default_rng(1).bytes(700_000)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.bin").write_bytes(DATA)
    with serve(tmp_path / "files") as server:
        yield server


def make(tmp_path, **options):
    options = {"sleep": lambda seconds: None, "timeout": 5.0, "retries": 3, **options}
    return RangeCache(tmp_path / "cache", **options)


def read(cache, remote, start, end):
    with cache.open(remote) as file:
        file.seek(start)
        return file.read(end - start)


def asked_twice(log):
    spans = [(start, end) for _, start, end in log]
    return total(spans) - total(merge(spans))


spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))
)


@given(spans, spans)
def test_merging_and_subtracting_spans_agree_with_sets_of_bytes(first, second):
    def members(some):
        return {n for start, end in some for n in range(start, end)}

    assert members(merge(first)) == members(first)
    assert members(subtract(merge(first), merge(second))) == members(first) - members(second)


def test_a_described_file_is_known_with_its_first_bytes(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    assert remote.size == len(DATA) and remote.validator.startswith('"')
    assert read(cache, remote, 0, 30_000) == DATA[:30_000]
    assert len(server.log) == 1


def test_a_connection_serves_one_file_and_phase_after_another(server, tmp_path):
    cache = make(tmp_path)
    for name in "bcd":
        (server.root / f"{name}.bin").write_bytes(DATA)
    hrefs = [f"{server.url}/{name}.bin" for name in "abcd"]
    remotes = run_parallel(cache.describe, hrefs, workers=2)
    cache.fetch({remote: [(200_000, 400_000)] for remote in remotes}, name="test")
    assert len(server.log) == 8
    assert len({row.port for row in server.log}) <= 4  # 'connections', of which two were open


def test_describing_again_moves_no_bytes(server, tmp_path):
    make(tmp_path).describe(f"{server.url}/a.bin")
    make(tmp_path).describe(f"{server.url}/a.bin")
    assert [row.status for row in server.log] == [206, 304]


def test_what_was_read_is_not_asked_for_again_even_by_another_process(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    assert read(cache, remote, 100_000, 300_000) == DATA[100_000:300_000]
    before = len(server.log)
    other = make(tmp_path)
    assert read(other, remote, 120_000, 290_000) == DATA[120_000:290_000]
    assert read(other, remote, 0, 30_000) == DATA[:30_000]
    assert len(server.log) == before


def test_a_scattered_fetch_asks_for_missing_bytes_only(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    cache.fetch({remote: [(200_000, 210_000)]}, name="first")
    came = cache.fetch({remote: [(190_000, 220_000), (10, 50), (500_000, 500_010)]}, name="second")
    assert came == 20_000 + 10
    assert asked_twice([(r.path, r.start, r.end) for r in server.log]) == 0
    assert read(cache, remote, 190_000, 220_000) == DATA[190_000:220_000]


def test_a_damaged_piece_of_the_cache_is_fetched_again(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    cache.fetch({remote: [(0, len(DATA))]}, name="all")
    data = next((tmp_path / "cache").glob("*/*/data"))
    with open(data, "r+b") as stream:
        stream.seek(300_000)
        stream.write(b"damage")
    assert read(make(tmp_path), remote, 0, len(DATA)) == DATA


def test_a_torn_line_of_the_journal_is_skipped(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    journal = next((tmp_path / "cache").glob("*/*/journal"))
    with open(journal, "a") as stream:
        stream.write("40000 5000 0123")
    assert read(make(tmp_path), remote, 0, 60_000) == DATA[:60_000]


def test_two_runs_that_share_the_cache_fetch_a_range_once(server, tmp_path):
    remote = make(tmp_path).describe(f"{server.url}/a.bin")
    server.delay = 0.05
    found = []

    def run():
        found.append(read(make(tmp_path), remote, 0, len(DATA)) == DATA)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
    assert asked_twice([(r.path, r.start, r.end) for r in server.log]) == 0


def test_no_more_connections_to_a_host_than_allowed_over_all_runs(server, tmp_path):
    for number in range(8):
        (server.root / f"{number}.bin").write_bytes(DATA[:50_000])
    server.delay = 0.05
    caches = [make(tmp_path, connections=2) for _ in range(2)]
    threads = [
        threading.Thread(target=caches[n % 2].describe, args=(f"{server.url}/{n}.bin",))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 2


def faulty(server, plan):
    return Proxy(server.url, plan)


def once(fault, at=2):
    return lambda path, n: fault if n == at else None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "7"}),
        Fault(reset_after=123_457),
        Fault(reset_after=0),
        Fault(lengthen=5_000),
        Fault(lengthen=-5_000),
        Fault(headers={"Content-Range": "bytes 0-10/700000"}),
    ],
    ids=lambda fault: str(fault).partition("(")[2][:40],
)
def test_a_fault_on_the_way_costs_no_finished_byte(server, tmp_path, fault):
    with faulty(server, once(fault)) as proxy:
        cache = make(tmp_path)
        remote = cache.describe(f"{proxy.url}/a.bin")
        assert read(cache, remote, 0, len(DATA)) == DATA
        sent = [row for row in proxy.log if row[0] == "/a.bin"]
    ends = merge([(start, end) for _, start, end in sent])
    assert ends == [(0, len(DATA))]
    if fault.reset_after:
        assert sent[2][1] > range_cache.HEADER, "bytes that came before the reset are kept"


def test_a_pause_that_the_server_asks_for_is_kept(server, tmp_path):
    waits = []
    with faulty(server, once(Fault(status=429, headers={"Retry-After": "7"}))) as proxy:
        cache = make(tmp_path, sleep=waits.append)
        cache.fetch({cache.describe(f"{proxy.url}/a.bin"): [(0, 100_000)]}, name="x")
    assert max(waits) == 7.0


def test_pauses_grow_and_differ(server, tmp_path):
    waits = []
    with faulty(server, lambda path, n: Fault(status=500) if n > 1 else None) as proxy:
        cache = make(tmp_path, sleep=lambda s: waits.append(s) if s else None, retries=4)
        remote = cache.describe(f"{proxy.url}/a.bin")
        with pytest.raises(InputError, match="failed 5 times in a row.*500"):
            cache.fetch({remote: [(0, 100_000)]}, name="x")
    assert len(waits) == 4 and all(2**n / 2 <= w <= 2**n for n, w in enumerate(waits, 1))


def test_a_server_that_drips_is_given_up_and_continued(server, tmp_path):
    with faulty(server, once(Fault(drip=0.01))) as proxy:
        cache = make(tmp_path, timeout=0.5)
        remote = cache.describe(f"{proxy.url}/a.bin")
        assert read(cache, remote, 0, 100_000) == DATA[:100_000]
        sent = [row[1:] for row in proxy.log]
    assert sent[2][0] > sent[1][0], "what dripped in is kept"


def test_another_version_of_the_file_is_refused_between_two_parts(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    (server.root / "a.bin").write_bytes(DATA[::-1])
    with pytest.raises(InputError, match="not the one that was searched.*412"):
        read(cache, remote, 0, len(DATA))


def test_another_entity_tag_in_an_answer_is_refused(server, tmp_path):
    with faulty(server, once(Fault(headers={"ETag": '"other"'}))) as proxy:
        cache = make(tmp_path)
        remote = cache.describe(f"{proxy.url}/a.bin")
        with pytest.raises(InputError, match="not the one that was searched.*other"):
            read(cache, remote, 0, len(DATA))


def test_a_file_shorter_than_its_own_directory_says_is_called_truncated(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    with pytest.raises(InputError, match="truncated"):
        cache.fetch({remote: [(0, len(DATA) + 1)]}, name="x")


def test_an_expired_signature_is_renewed_once_and_never_shown(server, tmp_path, caplog):
    with faulty(server, lambda path, n: None) as proxy:
        proxy.signed, proxy.signatures, tokens = True, {"new"}, ["old", "new"]

        def sign(href, again):
            if again:
                tokens.pop(0)
            return Request(f"{href}?sig={tokens[0]}")

        cache = make(tmp_path, sign=sign)
        remote = cache.describe(f"{proxy.url}/a.bin")
        assert read(cache, remote, 0, len(DATA)) == DATA
        proxy.signatures.clear()
        cache.fetch({remote: [(0, 10)]}, name="cached")
        with pytest.raises(InputError, match="403") as refused:
            make(
                tmp_path / "other", sign=lambda href, again: Request(f"{href}?sig=s3cret")
            ).describe(f"{proxy.url}/a.bin")
    written = "".join(
        p.read_text(errors="replace")
        for p in tmp_path.rglob("*")
        if p.is_file() and p.name != "data"
    )
    for secret in ("sig=", "s3cret"):
        assert secret not in caplog.text + str(refused.value) + written


def test_an_unknown_host_is_named(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InputError, match="nowhere.example.*failed 4 times.*check the network"):
        make(tmp_path).describe("http://nowhere.example/a.tif?sig=hidden")


def test_a_full_disk_ends_with_one_clear_line_and_nothing_wrong_is_trusted(
    server, tmp_path, monkeypatch
):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    written, plain = [0], os.pwrite

    def full(handle, data, start):
        if written[0] > 200_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written[0] += len(data)
        return plain(handle, data, start)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="No space left on device.*free some space"):
        read(cache, remote, 0, len(DATA))
    monkeypatch.setattr(os, "pwrite", plain)
    before = len(server.log)
    assert read(make(tmp_path), remote, 0, len(DATA)) == DATA
    assert min(row.start for row in server.log[before:]) > 200_000


def test_the_disk_is_checked_before_the_first_byte(server, tmp_path, monkeypatch):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    usage = range_cache.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(range_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"0.7 MB are needed, 0.0 MB are free"):
        cache.fetch({remote: [(0, len(DATA))]}, name="x")
    assert len(server.log) == 1


def test_a_server_without_ranges_is_asked_once(server, tmp_path):
    server.ranges = False
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    assert read(cache, remote, 300_000, 310_000) == DATA[300_000:310_000]
    assert read(cache, remote, 0, len(DATA)) == DATA
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "404.*search again"), (401, "401.*give credentials"), (410, "410.*leave the item out")],
)
def test_a_refusal_says_what_to_do(server, tmp_path, status, message):
    with faulty(server, lambda path, n: Fault(status=status)) as proxy:
        with pytest.raises(InputError, match=message):
            make(tmp_path).describe(f"{proxy.url}/a.bin")


def test_progress_tells_rate_and_time_left(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("unveil.remote.http.LOG_EVERY", 0.0)
    caplog.set_level("INFO")
    cache = make(tmp_path)
    cache.fetch({cache.describe(f"{server.url}/a.bin"): [(0, len(DATA))]}, name="scene")
    assert "MB/s" in caplog.text and "s left" in caplog.text


def test_reading_a_remote_is_reading_a_file(server, tmp_path):
    cache = make(tmp_path)
    remote = cache.describe(f"{server.url}/a.bin")
    assert isinstance(remote, Remote) and remote.name == "a.bin"
    with cache.open(remote) as file:
        assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
        assert file.read() == DATA[-10:] and file.read() == b""
        file.seek(5)
        buffer = bytearray(7)
        assert file.readinto(buffer) == 7 and bytes(buffer) == DATA[5:12] and file.tell() == 12
