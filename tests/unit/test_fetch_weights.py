"""Downloads of published weights, against servers on this machine that behave badly."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import InputError
from unveil.weights.fetch import fetch
from unveil.weights.published import PublishedWeights, read_published

WEIGHTS = b"\x89HDF\r\n\x1a\n" + random.Random(5).randbytes(300_000)
PAGE = b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head><body>No.</body></html>"
LATER = "Sat, 03 Jan 2026 00:00:00 GMT"


@dataclasses.dataclass(frozen=True)
class Answer:
    """How the server treats one request."""

    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None  # instead of the weights
    drop_after: int | None = None  # bytes of the body after which the connection ends
    announce: int = 0  # added to the true Content-Length
    chunk: int = 1 << 20
    pause: float = 0.0  # seconds between chunks


class Server(ThreadingHTTPServer):
    """A server of one file that follows a script, then behaves well."""

    daemon_threads = False  # closing waits for what they still write down

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are part of the tests."""

    def __init__(self, content: bytes, answers: list[Answer], *, etag: str, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.answers, self.etag, self.ranges = content, answers, etag, ranges
        self.heeds_if_range = True
        self.starts: list[int] = []  # first byte asked for, request by request
        self.sent: list[tuple[int, int]] = []  # bytes of the file that were sent
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.hdf5"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        server: Server = self.server
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.starts.append(int(asked[1]) if asked else 0)
        server.paths.append(self.path)
        answer = server.answers.pop(0) if server.answers else Answer()
        if answer.status != 200 or answer.body is not None:
            return self._send(answer, answer.status, answer.body or b"", {})
        headers = {"ETag": server.etag} if server.etag else {}
        whole, start = server.content, 0
        fits = not server.heeds_if_range or self.headers.get("If-Range") in (None, server.etag)
        if asked and server.ranges and fits:
            start = int(asked[1])
            if start >= len(whole):
                headers["Content-Range"] = f"bytes */{len(whole)}"
                return self._send(answer, 416, b"", headers)
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        taken = self._send(answer, 206 if start else 200, whole[start:], headers)
        server.sent.append((start, start + taken))

    def _send(self, answer: Answer, status: int, body: bytes, headers: dict[str, str]) -> int:
        self.send_response(status)
        length = {"Content-Length": str(max(len(body) + answer.announce, 0))}
        for name, value in {**length, **headers, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        body = body[: answer.drop_after]
        for at in range(0, len(body), answer.chunk):
            self.wfile.write(body[at : at + answer.chunk])
            time.sleep(answer.pause)
        return len(body)


@contextlib.contextmanager
def serving(
    *answers: Answer, content: bytes = WEIGHTS, etag: str = '"one"', ranges: bool = True
) -> Iterator[Server]:
    with Server(content, list(answers), etag=etag, ranges=ranges) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def entry(server: Server | None = None, **known) -> PublishedWeights:
    facts = {"id": "net", "model": "dsen2cr", "file": "weights.hdf5", "page": "https://x.org/net"}
    return PublishedWeights(**{**facts, "url": server.url if server else "", **known})


KNOWN = {"size_bytes": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest()}


def get(row: PublishedWeights, folder: Path, *, waits: list[float] | None = None, **options):
    with requests.Session() as session:
        session.trust_env = False  # no proxy between two ends of one machine
        sleep = (waits if waits is not None else []).append
        return fetch(row, folder, session=session, sleep=sleep, timeout=5, **options)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"weights.hdf5", "weights.hdf5.json"}


# ------------------------------------------------------------------------- good and slow ends


@pytest.mark.parametrize("known", [{}, KNOWN])
def test_a_file_is_fetched_whole_and_what_came_is_recorded(tmp_path, known):
    with serving() as server:
        path = get(entry(server, **known), tmp_path / "new")
    assert path.read_bytes() == WEIGHTS
    record = json.loads((tmp_path / "new" / "weights.hdf5.json").read_text())
    assert {name: record[name] for name in KNOWN} == KNOWN
    assert record["url"] == server.url
    assert not leftovers(tmp_path / "new")


def test_a_slow_server_is_waited_for(tmp_path):
    with serving(Answer(chunk=8192, pause=0.002)) as server:
        path = get(entry(server, **KNOWN), tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert server.starts == [0]


def test_a_silent_server_is_given_up_and_asked_again(tmp_path):
    with serving(Answer(chunk=1000, pause=1.0)) as server, requests.Session() as session:
        session.trust_env = False
        row = entry(server, **KNOWN)
        path = fetch(row, tmp_path, session=session, timeout=0.2, sleep=lambda _s: None)
    assert path.read_bytes() == WEIGHTS
    assert server.starts == [0, 1000]


def test_a_body_without_announced_length_is_taken(tmp_path):
    with serving(Answer(headers={"Content-Length": ""})) as server:
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS


# ------------------------------------------------------------------------ dropped connections


@settings(max_examples=25)
@given(drops=st.lists(st.integers(0, len(WEIGHTS) - 1), max_size=4), known=st.booleans())
def test_no_byte_is_asked_for_twice_wherever_connections_drop(tmp_path_factory, drops, known):
    folder = tmp_path_factory.mktemp("drops")
    with serving(*(Answer(drop_after=drop) for drop in drops)) as server:
        path = get(entry(server, **(KNOWN if known else {})), folder)
    assert path.read_bytes() == WEIGHTS
    assert server.sent[0][0] == 0
    assert server.sent[-1][1] == len(WEIGHTS)
    assert all(
        stop == start for (_, stop), (start, _) in zip(server.sent, server.sent[1:], strict=False)
    )


def test_the_next_run_goes_on_where_a_failed_one_stopped(tmp_path):
    with serving(Answer(drop_after=100_000)) as server:
        with pytest.raises(InputError, match="100000 bytes are kept.*save the file as"):
            get(entry(server, **KNOWN), tmp_path, retries=0)
        assert not (tmp_path / "weights.hdf5").exists()
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, 100_000]


def test_a_run_killed_before_the_last_rename_asks_for_nothing_again(tmp_path):
    with serving() as server:
        (tmp_path / "weights.hdf5.part").write_bytes(WEIGHTS)
        note = {"url": server.url, "validator": '"one"'}
        (tmp_path / "weights.hdf5.part.json").write_text(json.dumps(note))
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == []


def test_the_bytes_of_another_address_are_not_gone_on_from(tmp_path):
    with serving() as server:
        (tmp_path / "weights.hdf5.part").write_bytes(b"\0" * 1000)
        note = {"url": "https://elsewhere.org/f", "validator": '"one"'}
        (tmp_path / "weights.hdf5.part.json").write_text(json.dumps(note))
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0]


def test_without_ranges_a_dropped_download_begins_anew(tmp_path):
    with serving(Answer(drop_after=70_000), ranges=False) as server:
        assert get(entry(server), tmp_path).read_bytes() == WEIGHTS
    assert server.sent == [(0, 70_000), (0, len(WEIGHTS))]


def test_without_tag_and_checksum_a_dropped_download_begins_anew(tmp_path):
    with serving(Answer(drop_after=70_000), etag="") as server:
        assert get(entry(server), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, 0]


def test_a_weak_tag_is_not_trusted_but_a_checksum_is(tmp_path):
    with serving(Answer(drop_after=70_000), etag='W/"one"') as server:
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, 70_000]


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_under_way_is_fetched_from_its_beginning(tmp_path, heeds_if_range):
    old = random.Random(1).randbytes(len(WEIGHTS))
    with serving(Answer(drop_after=70_000), content=old, etag='"old"') as server:
        server.heeds_if_range = heeds_if_range
        with pytest.raises(InputError):
            get(entry(server), tmp_path, retries=0)
        server.content, server.etag = WEIGHTS, '"new"'
        assert get(entry(server), tmp_path).read_bytes() == WEIGHTS
    assert server.starts[:2] == [0, 70_000]
    assert server.sent[-1] == (0, len(WEIGHTS))


def test_pieces_of_two_files_are_found_out_by_the_checksum(tmp_path):
    old = random.Random(1).randbytes(len(WEIGHTS))
    with serving(Answer(drop_after=70_000), content=old, etag="") as server:
        with pytest.raises(InputError):
            get(entry(server, **KNOWN), tmp_path, retries=0)
        server.content = WEIGHTS
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, 70_000, 0]


# ---------------------------------------------------------------------------- lies on length


@pytest.mark.parametrize("known", [{}, KNOWN])
def test_a_length_announced_too_long_costs_no_byte_twice(tmp_path, known):
    with serving(Answer(announce=5000)) as server:
        assert get(entry(server, **known), tmp_path).read_bytes() == WEIGHTS
    assert server.sent == [(0, len(WEIGHTS))]


def test_a_length_announced_too_short_is_made_good_when_the_size_is_known(tmp_path):
    with serving(Answer(announce=-5000)) as server:
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, len(WEIGHTS) - 5000]


def test_a_server_that_always_lies_ends_in_an_error(tmp_path):
    lies = [Answer(announce=5000)] * 9
    with serving(*lies, ranges=False) as server:
        with pytest.raises(InputError, match=r"weights\.hdf5.*failed 3 times.*x\.org/net"):
            get(entry(server), tmp_path, retries=2)
    assert len(server.starts) == 3
    assert not (tmp_path / "weights.hdf5").exists()


def test_a_body_longer_than_the_file_is_refused(tmp_path):
    with serving(content=WEIGHTS + b"more") as server:
        with pytest.raises(InputError, match=f"gives more than {len(WEIGHTS)} bytes"):
            get(entry(server, **KNOWN), tmp_path)
    assert not (tmp_path / "weights.hdf5").exists()


def test_another_file_of_the_same_size_is_refused(tmp_path):
    with serving(content=WEIGHTS[::-1]) as server:
        with pytest.raises(InputError, match="SHA-256"):
            get(entry(server, **KNOWN), tmp_path)
    assert len(server.starts) == 1
    assert not (tmp_path / "weights.hdf5").exists()


# -------------------------------------------------------------------------------- web pages


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("known", [{}, KNOWN])
def test_a_web_page_is_not_taken_for_weights(tmp_path, kind, known):
    with serving(Answer(body=PAGE, headers={"Content-Type": kind})) as server:
        with pytest.raises(InputError, match="web page|HTML page") as caught:
            get(entry(server, **known), tmp_path)
    assert "open https://x.org/net in a browser" in str(caught.value)
    assert len(server.starts) == 1
    assert not (tmp_path / "weights.hdf5").exists()


def test_a_page_in_answer_to_a_range_leaves_the_bytes_that_are_there(tmp_path):
    page = Answer(body=PAGE, headers={"Content-Type": "text/html"})
    with serving(Answer(drop_after=70_000), page) as server:
        with pytest.raises(InputError, match="Quota exceeded"):
            get(entry(server, **KNOWN), tmp_path)
        assert get(entry(server, **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert server.starts == [0, 70_000, 70_000]


# --------------------------------------------------------------------------- errors of servers


def test_errors_of_a_server_that_recovers_are_outlasted(tmp_path):
    waits: list[float] = []
    with serving(*[Answer(status=status) for status in (500, 502, 503)]) as server:
        assert get(entry(server, **KNOWN), tmp_path, waits=waits).read_bytes() == WEIGHTS
    assert all(1 <= wait <= 8 for wait in waits)
    assert len(waits) == 3


def test_a_server_that_asks_for_a_pause_gets_it(tmp_path):
    waits: list[float] = []
    dated = {"Retry-After": formatdate(time.time() + 100, usegmt=True)}
    answers = [Answer(status=429, headers={"Retry-After": "7"}), Answer(status=503, headers=dated)]
    with serving(*answers) as server:
        assert get(entry(server, **KNOWN), tmp_path, waits=waits).read_bytes() == WEIGHTS
    assert waits[0] == 7
    assert 30 < waits[1] <= 100


def test_a_pause_of_hours_is_reported_instead_of_waited_for(tmp_path):
    with serving(Answer(status=429, headers={"Retry-After": "86400"})) as server:
        with pytest.raises(InputError, match="come back in 86400 s"):
            get(entry(server, **KNOWN), tmp_path)


def test_a_file_that_is_gone_is_asked_for_once(tmp_path):
    gone = Answer(status=404, body=PAGE, headers={"Content-Type": "text/html"})
    with serving(gone) as server:
        with pytest.raises(InputError, match="404 Not Found: 'Quota exceeded'.*Remedy: open"):
            get(entry(server, **KNOWN), tmp_path)
    assert len(server.starts) == 1


def test_a_server_that_does_not_answer_ends_in_an_error(tmp_path):
    with serving() as server:
        row = entry(server, **KNOWN)
    with pytest.raises(InputError, match="failed 2 times in a row"):
        get(row, tmp_path, retries=1)


def test_an_address_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(InputError, match="http://:nowhere"):
        get(entry(url="http://:nowhere/f"), tmp_path)


# ------------------------------------------------------------------------------ Google Drive


class Drive(requests.adapters.HTTPAdapter):
    """Sends requests for Google's hosts to a server on this machine."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.port = server.server_address[1]

    def send(self, request, **options):
        asked, parts = request.url, urlsplit(request.url)
        request.url = f"http://127.0.0.1:{self.port}{parts.path}?{parts.query}"
        response = super().send(request, **options)
        response.url = asked
        return response


def get_from_drive(server: Server, folder: Path) -> Path:
    row = entry(url="https://drive.google.com/uc?id=abc")
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://drive", Drive(server))
        return fetch(row, folder, session=session, sleep=lambda _seconds: None)


# Google writes the form in one line.
CONFIRM = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    b'<form id="download-form" action="https://drive.usercontent.google.com/download">'
    b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t">'
    b"</form></body></html>"
)
REFUSED = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry</p>
<p class="uc-error-subcaption">Too many users have viewed this file recently.</p></body></html>"""
HTML = {"Content-Type": "text/html; charset=utf-8"}


def test_a_small_file_comes_from_google_drive_at_once(tmp_path):
    with serving() as server:
        assert get_from_drive(server, tmp_path).read_bytes() == WEIGHTS
    assert server.paths == ["/uc?id=abc"]


def test_the_virus_scan_question_of_google_drive_is_answered_and_the_download_resumed(tmp_path):
    pytest.importorskip("gdown", reason="gdown answers Google Drive's question")
    page = Answer(body=CONFIRM, headers=HTML)
    with serving(page, Answer(drop_after=70_000), page) as server:
        assert get_from_drive(server, tmp_path).read_bytes() == WEIGHTS
    assert server.paths == ["/uc?id=abc", "/download?id=abc&confirm=t"] * 2
    assert server.sent == [(0, 70_000), (70_000, len(WEIGHTS))]


def test_google_drives_reason_for_a_refusal_reaches_the_user(tmp_path):
    pytest.importorskip("gdown", reason="gdown reads Google Drive's pages")
    with serving(Answer(body=REFUSED, headers=HTML)) as server:
        with pytest.raises(InputError, match="Quota exceeded.*Too many users") as caught:
            get_from_drive(server, tmp_path)
    assert "open https://x.org/net in a browser" in str(caught.value)


def test_without_gdown_a_question_of_google_drive_ends_in_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown.download", None)
    with serving(Answer(body=CONFIRM, headers=HTML)) as server:
        with pytest.raises(InputError, match="package gdown.*in a browser"):
            get_from_drive(server, tmp_path)


# --------------------------------------------------------------------- files that are there


def test_a_right_file_put_there_by_hand_is_kept_and_recorded(tmp_path):
    (tmp_path / "weights.hdf5").write_bytes(WEIGHTS)
    assert get(entry(url="http://127.0.0.1:9/", **KNOWN), tmp_path).read_bytes() == WEIGHTS
    assert json.loads((tmp_path / "weights.hdf5.json").read_text())["sha256"] == KNOWN["sha256"]


def test_a_file_without_address_is_asked_of_the_user_with_its_page(tmp_path):
    with pytest.raises(InputError, match=r"no direct address.*https://x\.org/net.*weights\.hdf5"):
        get(entry(), tmp_path)
    (tmp_path / "weights.hdf5").write_bytes(WEIGHTS)
    assert get(entry(), tmp_path).exists()


def test_a_page_saved_under_the_name_of_the_weights_is_refused(tmp_path):
    (tmp_path / "weights.hdf5").write_bytes(PAGE)
    with pytest.raises(InputError, match="HTML page"):
        get(entry(), tmp_path)
    assert (tmp_path / "weights.hdf5").read_bytes() == PAGE


@pytest.mark.parametrize("known", [{}, KNOWN])
def test_a_fetched_file_that_was_damaged_is_fetched_again(tmp_path, known):
    with serving() as server:
        row = entry(server, **known)
        path = get(row, tmp_path)
        path.write_bytes(WEIGHTS[:-1] + b"\0")
        assert get(row, tmp_path).read_bytes() == WEIGHTS
        get(row, tmp_path)
    assert server.starts == [0, 0]


def test_two_runs_do_not_write_one_file_together(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with serving() as server, open(tmp_path / "weights.hdf5.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run"):
            get(entry(server, **KNOWN), tmp_path)
    assert server.starts == []


def test_progress_is_logged_where_there_is_no_terminal(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("unveil.remote.http.LOG_EVERY", 0.0)
    with serving(Answer(chunk=100_000, pause=0.002)) as server, caplog.at_level("INFO"):
        get(entry(server, **KNOWN), tmp_path)
    lines = [text for text in caplog.messages if "MB/s" in text]
    assert lines and all(re.search(r"[\d.]+ MB, [\d.]+ MB/s, \d+ s left", text) for text in lines)


# ------------------------------------------------------------------------------- the table


@pytest.fixture(scope="module")
def published(root) -> dict[str, PublishedWeights]:
    return read_published(root / "resources" / "published_weights.tsv")


def test_the_table_names_the_files_of_the_official_models(root, published):
    models = yaml.safe_load((root / "config" / "models.yaml").read_text())
    wanted = {
        Path(row["weights"]).name
        for row in models.values()
        if Path(row.get("weights", "")).parent.name == "weights" and ".cache" in row["weights"]
    }
    assert len(wanted) >= 4
    assert wanted <= set(published)


def test_every_row_of_the_table_can_be_found_by_a_person(published):
    for row in published.values():
        assert row.page.startswith("https://")
        assert row.reference and row.licence


def test_the_table_has_the_checksums_of_the_real_files(published, shared):
    for row in published.values():
        if row.model == "anytimeformer":
            name = row.file.replace("anytimeformer_germany_", "best_model_")
            content = (shared / "weights" / "anytimeformer" / name).read_bytes()
            assert row.size_bytes == len(content)
            assert row.sha256 == hashlib.sha256(content).hexdigest()


GOOD_ROW = "net\tdsen2cr\tnet.h5\thttps://x.org/f\t12\t\t\t\t\n"
HEADER = "id\tmodel\tfile\turl\tsize_bytes\tsha256\tlicence\treference\tpage\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("\t", ","), "header"),
        (HEADER + GOOD_ROW.replace("net.h5", "../net.h5"), "line 2.file"),
        (HEADER + GOOD_ROW.replace("12", "12 MB"), "line 2.size_bytes"),
        (HEADER + GOOD_ROW.replace("https:", "file:"), "line 2.url"),
        (HEADER + GOOD_ROW * 2, "stands twice"),
    ],
)
def test_a_bad_cell_of_the_table_is_named(tmp_path, text, message):
    (tmp_path / "table.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_published(tmp_path / "table.tsv")
