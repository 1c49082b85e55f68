"""Source ``stac`` against real servers on loopback: choices, reruns, kills, the whole workflow.

``UNVEIL_KILLS`` sets how often a fetch is killed (3; the whole proof is 20).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.services import stac_data
from tests.services.stac_servers import Fault, Proxy, catalogue, file_server
from tests.small_run import ROOT
from tests.small_run import snakemake as small_snakemake

from unveil import raster
from unveil.config import SceneRow, load_config
from unveil.remote.cache_archive import pack_fetched, take_fetched
from unveil.remote.range_cache import merge, subtract
from unveil.scene import load_scene
from unveil.sources.stac import search as stac_search
from unveil.sources.stac.lock import lock_path, make_request, ranges_folder, read_lock, write_lock
from unveil.sources.stac.read import fetch_stac, open_stac
from unveil.sources.stac.search import search_scene

pytestmark = pytest.mark.services

COLLECTIONS = [stac_data.make_collection(c) for c in ("sentinel-2-l2a", "sentinel-1-rtc")]
FIRST, LAST = dt.date(2018, 8, 28), dt.date(2018, 9, 27)
REPROCESSED = dt.date(2018, 9, 15)


class Servers:
    """A catalogue, its files, and the proxy in front of the radar files, which asks for signs."""

    def __init__(self, api, files, proxy, items, folder):
        self.api, self.files, self.proxy, self.items = api, files, proxy, items
        self.presets = folder / "presets.yaml"
        signed = {
            "token_url": f"{proxy.url}/token/{{account}}/{{container}}",
            "hosts": ["127.0.0.1"],
        }
        own = {
            "earth-search-sentinel-2-l2a": {"api": api},
            "planetary-computer-sentinel-1-rtc": {"api": api, "sign": signed},
        }
        self.presets.write_text(yaml.safe_dump(own))

    def settings(self, folder, selection=None, **stac):
        stac = {"presets": str(self.presets), "locks": str(folder / "locks"), **stac}
        config = load_config({"sources": {"selection": selection or {}, "stac": stac}})
        return config["sources"]["stac"] | {
            "cache": str(folder / "cache"),
            "selection": config["sources"]["selection"],
        }


@pytest.fixture(scope="module")
def servers(tmp_path_factory, shared):
    folder = tmp_path_factory.mktemp("servers")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # nginx and PostgreSQL run as users of their own
    root = folder / "files"
    root.mkdir()
    with file_server(root, folder / "nginx") as files:
        with Proxy(files.url, lambda path, n: None) as proxy:
            proxy.signed = True
            cereal = stac_data.worldcereal_optical(
                shared, root, files.url, FIRST, LAST, raw_from=REPROCESSED
            )
            radar = stac_data.worldcereal_radar(shared, root, proxy.url, FIRST, LAST)
            items = [*cereal, *radar, *stac_data.mapchete(shared, root, files.url)]
            with catalogue(folder / "pgstac", COLLECTIONS, items) as api:
                yield Servers(api, files, proxy, items, folder)


def row_of(area, date, protocol="paired", **facts):
    return SceneRow(
        "s", "stac", "earth-search-sentinel-2-l2a", date, protocol, area=str(area), **facts
    )


def search(row, settings):
    request = make_request(row, settings)
    lock = search_scene(request, settings)
    write_lock(lock_path(row.scene, settings), lock)
    return lock


def read_all(frame, grid):
    return np.concatenate([frame.read(w) for w in grid.windows()], axis=2)


# --- choices on real dates --------------------------------------------------------------


def test_five_dates_of_33twl_are_told_apart_by_cloud_over_the_place(servers, tmp_path, monkeypatch):
    """The whole tile, decimated to 120 m: 73, 2, 1, 49 (of what is seen 56) and 12 % cloud."""
    monkeypatch.setattr(stac_search, "HIDDEN_GROWTH_PX", 0)  # these are covers before any growth
    settings = servers.settings(
        tmp_path,
        {"window_days": 3, "target_cloud": [0.5, 0.9], "truth_cloud": 0.02},
        bands=["B02", "B04"],
        resolution_m=120,
        days=20,
    )
    lock = search(row_of("33TWL", "2023-08-12", n_context=2), settings)
    cover = {date[8:]: seen["occluded"] for date, seen in lock["cover"].items()}
    expected = {"10": 0.735, "13": 0.020, "15": 0.006, "18": 0.559, "20": 0.124}
    assert cover == pytest.approx(expected, abs=0.005)
    seen = {date[8:]: entry["seen"] for date, entry in lock["cover"].items()}
    assert seen["13"] == pytest.approx(0.873, abs=0.005) and seen["15"] == pytest.approx(
        1, abs=0.01
    )
    assert lock["chosen"]["target"] == "2023-08-10"
    assert lock["chosen"]["reference"] == "2023-08-15", "the 13th is nearer, but shows 87 % only"
    assert lock["chosen"]["context"] == ["2023-08-13", "2023-08-18"]


def test_masks_and_pixels_of_the_served_series_are_those_of_the_dataset(servers, tmp_path, shared):
    settings = servers.settings(
        tmp_path,
        {"window_days": 20, "target_cloud": [0.2, 0.9], "truth_cloud": 0.02},
        radar="planetary-computer-sentinel-1-rtc",
        bands=["B02", "B08", "B11"],
        days=14,
    )
    row = row_of(ROOT / "config/examples/stac.geojson", "2018-09-08", n_context=4)
    lock = search(row, settings)
    assert lock["chosen"]["target"] == "2018-09-13" and lock["grid"]["crs"] == "EPSG:32631"
    assert not any("50" in str(seen["occluded"]) for seen in lock["cover"].values())
    series = open_stac(row, settings)
    assert series.target_date == "2018-09-13" and series.grid.shape == (60, 60)
    for date, frame in series.optical.items():
        dn = stac_data.worldcereal_dn(shared, date, "B02")[:60, :60]
        assert np.array_equal(read_all(frame, series.grid)[0], np.where(dn > 0, dn, 0)), date
        raw = date >= REPROCESSED.isoformat()
        assert frame.facts["unveil:offset_applied"] == (-1000 if raw else 0)
        scl = np.repeat(np.repeat(stac_data.worldcereal_dn(shared, date, "SCL"), 2, 0), 2, 1)
        assert np.array_equal(read_all(series.masks[date], series.grid)[0], scl[:60, :60]), date
    orbits = {frame.facts["sat:relative_orbit"] for frame in series.radar.values()}
    assert len(orbits) == 1, "one relative orbit as long as it passes often enough"
    assert {f.facts["unveil:calibration"] for f in series.radar.values()} == {"gamma0"}
    for frame in series.radar.values():
        vv, vh = np.nanmedian(read_all(frame, series.grid), axis=(1, 2))
        assert -15 < vv < -4 and -25 < vh < vv


def test_a_lock_is_fetched_again_without_any_network(servers, tmp_path):
    settings = servers.settings(tmp_path, {"window_days": 20}, bands=["B04"], days=12)
    row = row_of(ROOT / "config/examples/stac.geojson", "2018-09-08", n_context=2)
    search(row, settings)
    first = open_stac(row, settings)
    before = len(servers.files.requests())
    second = open_stac(row, settings)
    assert len(servers.files.requests()) == before
    for date, frame in first.optical.items():
        assert np.array_equal(
            read_all(frame, first.grid), read_all(second.optical[date], second.grid)
        )


def test_a_scene_comes_from_its_archive_on_a_machine_without_a_network(servers, tmp_path):
    settings = servers.settings(
        tmp_path,
        {"window_days": 20},
        bands=["B04", "B8A"],
        days=12,
        radar="planetary-computer-sentinel-1-rtc",
    )
    row = row_of(ROOT / "config/examples/stac.geojson", "2018-09-08", n_context=2)
    search(row, settings)
    pack_fetched(tmp_path / "s.tar", fetch_stac(row, settings))
    first = open_stac(row, settings)
    elsewhere = settings | {"cache": str(tmp_path / "elsewhere")}
    take_fetched(tmp_path / "s.tar", ranges_folder(elsewhere))
    before = len(servers.files.requests()), len(servers.proxy.log)
    second = open_stac(row, elsewhere)
    for mine, theirs in ((first.optical, second.optical), (first.radar, second.radar)):
        assert mine.keys() == theirs.keys() and mine
        for date, frame in mine.items():
            one, other = read_all(frame, first.grid), read_all(theirs[date], second.grid)
            np.testing.assert_array_equal(one, other)
    assert (len(servers.files.requests()), len(servers.proxy.log)) == before


def test_searching_again_finds_the_same_and_moves_no_imagery(servers, tmp_path):
    settings = servers.settings(tmp_path, {"window_days": 20}, bands=["B04"], days=12)
    row = row_of(ROOT / "config/examples/stac.geojson", "2018-09-08", n_context=2)
    first = search(row, settings)
    before = servers.files.bytes_sent()
    assert search(row, settings) == first
    assert servers.files.bytes_sent() == before


def test_no_signature_is_written_down(servers, tmp_path):
    settings = servers.settings(
        tmp_path, {"window_days": 20}, radar="planetary-computer-sentinel-1-rtc", bands=["B04"]
    )
    row = row_of(ROOT / "config/examples/stac.geojson", "2018-09-08", n_context=0)
    search(row, settings)
    open_stac(row, settings)
    assert servers.proxy.tokens > 0
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "data"]
    assert kept and not any("token-" in p.read_text() or "sig=" in p.read_text() for p in kept)


# --- the whole workflow -----------------------------------------------------------------


def test_the_example_goes_from_geojson_to_report(servers, tmp_path):
    for name in ("config", "resources"):
        keep = shutil.ignore_patterns("weights", "example", "locks")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=keep)
    stac = {"presets": str(servers.presets), "days": 16}
    (tmp_path / "loopback.yaml").write_text(
        yaml.safe_dump(
            {"cache": "cache", "sources": {"stac": stac}, "run_models": ["cloudy", "regressed"]}
        )
    )
    arguments = ["--configfile", "config/examples/stac.yaml", "loopback.yaml"]
    dry = small_snakemake(tmp_path, *arguments, "--dry-run")
    assert dry.returncode == 0, dry.stdout[-3000:]
    done = small_snakemake(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = tmp_path / "results/stac"
    scene = load_scene(results / "scenes/fields/scene.json")
    assert scene.target.date == "2018-09-13" and len(scene.context) == 6 and scene.radar
    reference = scene.with_role("reference")[0]
    assert 0 < abs((dt.date.fromisoformat(reference.date) - dt.date(2018, 9, 13)).days) <= 45
    metrics = pd.read_csv(results / "metrics.csv")
    assert set(metrics.model) == {"cloudy", "regressed"}
    page = (results / "report/index.html").read_text()
    assert "Element 84" in page and "sig=" not in page
    again = small_snakemake(tmp_path, *arguments, "--dry-run")
    assert again.returncode == 0 and not re.search("(search|assemble)_scene", again.stdout)


def test_a_summer_of_images_without_clouds_comes_from_a_catalogue(servers, tmp_path):
    """Every acquisition of a lock becomes an image; a dry run then asks no server."""
    for name in ("config", "resources"):
        keep = shutil.ignore_patterns("weights", "example", "locks")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=keep)
    header, row = (
        line.split("\t") for line in (ROOT / "config/examples/stac.tsv").read_text().splitlines()
    )
    cells = dict(zip(header, row, strict=True))
    cells |= {"scene": "summer", "protocol": "none", "target_date": "every", "n_context": "6"}
    cells |= {"start": "2018-09-01", "end": "2018-09-20"}
    cells = {key: value for key, value in cells.items() if value}
    table = "\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n"
    (tmp_path / "summer.tsv").write_text(table)
    own = {
        "cache": "cache",
        "scenes": "summer.tsv",
        "results": "results",
        "run_models": ["damped"],
        "cloudfree": {"model": "damped"},
        "masks": {"detectors": ["source"]},
        "sources": {
            "selection": {"window_days": 20},
            "stac": {
                "presets": str(servers.presets),
                "locks": "locks",
                "bands": ["B02", "B03", "B04", "B08"],
            },
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    asked = small_snakemake(tmp_path, "search", "--configfile", "mine.yaml")
    assert asked.returncode == 0, asked.stdout[-2000:] + asked.stderr[-4000:]
    before = len(servers.files.requests())
    dry = small_snakemake(tmp_path, "cloudfree", "--configfile", "mine.yaml", "--dry-run")
    assert dry.returncode == 0, dry.stdout[-3000:]
    assert len(servers.files.requests()) == before
    done = small_snakemake(tmp_path, "cloudfree", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    product = tmp_path / "results/cloudfree/summer"
    collection = json.loads((product / "collection.json").read_text())
    dates = [link["title"] for link in collection["links"] if link["rel"] == "item"]
    assert len(dates) >= 3 and all("2018-09-01" <= date <= "2018-09-20" for date in dates)
    for date in dates:
        item = json.loads((product / date / f"{date}.json").read_text())
        assert item["properties"]["datetime"].startswith(date)
        origins = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
        assert len(origins) >= 5
        shares = item["properties"]["unveil:shares"]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


# --- kills ------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    """Return the checksums of results; hidden files are what a killed writer left unfinished."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "/." not in path.as_posix()
    }


def finished_spans(cache: Path) -> dict[str, list[tuple[int, int]]]:
    """Return what the cache lists as there, by path on the server."""
    found = {}
    for about in cache.glob("ranges/*/*/about.json"):
        path = re.sub(r"^https?://[^/]+", "", json.loads(about.read_text())["href"])
        lines = re.findall(
            r"^(\d+) (\d+) [0-9a-f]{32}$", about.with_name("journal").read_text(), re.MULTILINE
        )
        spans = [(int(start), int(start) + int(length)) for start, length in lines]
        found[path] = merge([*found.get(path, []), *spans])
    return found


@pytest.fixture
def killable(tmp_path, monkeypatch):
    """A lock whose files come slowly, and how to fetch it in another process."""
    root = tmp_path / "files"
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    root.mkdir()
    with file_server(root, tmp_path / "nginx") as files:
        with Proxy(files.url, lambda path, n: Fault(rate=600_000)) as proxy:
            items = stac_data.noisy_series(root, proxy.url)
            monkeypatch.setattr(stac_search, "_ask", lambda *_: items)
            killable = Killable(tmp_path, proxy)
            yield killable
            killable.worker.stdin.close()
            killable.worker.wait(30)


class Killable:
    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.folder, self.proxy = folder, proxy
        self.row = row_of("3.02,50.51,3.07,50.535", "2020-06-06", n_context=2)
        config = load_config({"sources": {"stac": {"bands": ["B02", "B03", "B04", "B08"]}}})
        self.sources = config["sources"]
        self.sources["stac"] |= {
            "locks": str(folder / "locks"),
            "selection": self.sources["selection"],
            "retries": 1,
        }
        script = Path(__file__).with_name("fetch_scene.py")
        self.worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def job(self, name: str, cache: str = "") -> Path:
        """Describe a fetch with the cache of a name into the folder of a name."""
        cache = {"cache": str(self.folder / (cache or name) / "cache")}
        sources = {**self.sources, "stac": self.sources["stac"] | cache}
        path = self.folder / f"{name}.json"
        folder = str(self.folder / name / "scene")
        path.write_text(json.dumps({"row": vars(self.row), "sources": sources, "folder": folder}))
        return path

    def search(self, name: str) -> None:
        search(self.row, self.sources["stac"] | {"cache": str(self.folder / name / "cache")})

    def ask(self, command: str, argument: object) -> int:
        self.worker.stdin.write(f"{command} {argument}\n")
        self.worker.stdin.flush()
        return int(self.worker.stdout.readline())

    def fetch(self, job: Path) -> None:
        assert self.ask("wait", self.ask("start", job)) == 0


def test_kills_at_random_moments_lose_no_finished_byte_and_change_no_result(killable):
    killable.search("calm")
    began = time.monotonic()
    killable.fetch(killable.job("calm"))
    took = time.monotonic() - began
    expected = digests(killable.folder / "calm" / "scene")
    assert len(expected) >= 6

    cache, job = killable.folder / "hard" / "cache", killable.job("hard")
    kills, rng, marks = int(os.environ.get("UNVEIL_KILLS", "3")), random.Random(11), []
    for _ in range(kills):
        process = killable.ask("start", job)
        time.sleep(rng.uniform(0, took / 2))
        os.kill(process, signal.SIGKILL)
        assert killable.ask("wait", process) in (-signal.SIGKILL, 0)
        time.sleep(0.2)  # what was on its way to the dead is not asked for by the next
        marks.append((len(killable.proxy.log), finished_spans(cache)))
    killable.fetch(job)
    assert digests(killable.folder / "hard" / "scene") == expected
    for at, finished in marks:
        for path, start, end in killable.proxy.log[at:]:
            span = [(start, end)]
            assert subtract(span, finished.get(path, [])) == span, f"{path} {start} twice"
    grown = [sum(e - b for spans in found.values() for b, e in spans) for _, found in marks]
    assert 0 < grown[0] and grown == sorted(grown), "kills fell on the download"


def test_two_runs_at_once_share_a_cache(killable):
    killable.search("both")
    before = len(killable.proxy.log)
    jobs = [killable.job("both"), killable.job("both2", cache="both")]
    processes = [killable.ask("start", job) for job in jobs]
    assert [killable.ask("wait", p) for p in processes] == [0, 0]
    asked = killable.proxy.log[before:]
    for path in {row[0] for row in asked}:
        spans = [(start, end) for name, start, end in asked if name == path]
        assert sum(e - s for s, e in spans) == sum(e - s for s, e in merge(spans)), path
    assert digests(killable.folder / "both" / "scene") == digests(
        killable.folder / "both2" / "scene"
    )


def test_a_lock_notices_that_a_file_has_changed_since_the_search(killable, tmp_path):
    killable.search("calm")
    settings = killable.sources["stac"] | {"cache": str(tmp_path / "other")}
    lock = read_lock(lock_path("s", settings), make_request(killable.row, settings))
    path = (
        tmp_path
        / "files"
        / re.sub(r"^https?://[^/]+/", "", lock["items"][0]["assets"]["B02"]["href"])
    )
    data = raster.read(path)[0]
    time.sleep(1.1)  # nginx makes entity tags of seconds
    stac_data.write_cog(
        path,
        data[::-1].copy(),
        stac_data.from_origin(499_980, 5_600_040, 10, 10),
        stac_data.NOISY_CRS,
    )
    with pytest.raises(Exception, match="not the one that was searched.*search again"):
        open_stac(killable.row, settings)
