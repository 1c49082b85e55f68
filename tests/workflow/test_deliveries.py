"""Handed over, answered by a program that knows the package alone, checked and scored."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from tests.small_run import ALL_CLOUD, DONOR, TRUTH, snakemake, write_config, write_place

from unveil.deliveries.check import check_delivery, judge
from unveil.deliveries.handover import write_handover
from unveil.models.base import ModelSpec
from unveil.models.external import External
from unveil.scene import load_scene

ROWS = [
    f"half\tlocal\tplace\t{TRUTH}\ttransplant\t{DONOR}\t\t6",
    f"covered\tlocal\tplace\t2020-05-11\ttransplant\t{ALL_CLOUD}\t\t6",
]
VENDOR = '''
"""A vendor: the mean of the other dates where they are clear. Knows the folder alone."""
import json, sys
from pathlib import Path
import numpy as np, rasterio
package, answers = Path(sys.argv[1]), Path(sys.argv[2])
answers.mkdir(exist_ok=True)
for request in json.loads((package / "requests.json").read_text())["scenes"]:
    folder = package / request["folder"]
    looks = []
    for date in request["context"]:
        image = rasterio.open(folder / date["image"]).read().astype(float)
        classes = rasterio.open(folder / date["mask"]).read(1)
        looks.append(np.where(np.isin(classes, (0, 3)), image, np.nan))
    with rasterio.open(folder / request["target"]["image"]) as target:
        profile = {k: target.profile[k] for k in ("crs", "transform", "width", "height", "count")}
        names = target.descriptions
    with rasterio.open(answers / request["answer"], "w", driver="GTiff", dtype="uint16",
                       nodata=0, **profile) as answer:
        answer.write(np.nan_to_num(np.nanmean(looks, axis=0)).round().astype("uint16"))
        answer.descriptions = names
'''


@pytest.fixture(scope="module")
def handed(tmp_path_factory) -> Path:
    """Hand two scenes over and let the vendor answer."""
    folder = tmp_path_factory.mktemp("deliveries")
    write_place(folder / "place")
    write_config(folder, ROWS, run_models=["theirs"])
    table = yaml.safe_load((folder / "models.yaml").read_text())
    table |= {
        name: {"kind": "external", "options": {"folder": name}} for name in ("theirs", "spoilt")
    }
    (folder / "models.yaml").write_text(yaml.safe_dump(table))
    done = snakemake(folder, "handover")
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "vendor.py").write_text(VENDOR)
    package = folder / "results/handover"
    subprocess.run([sys.executable, "vendor.py", package, "theirs"], cwd=folder, check=True)
    return folder


def verdicts(folder: Path, model: str) -> pd.DataFrame:
    done = snakemake(folder, "check_delivery", "--config", f"model={model}")
    assert done.returncode == 0, done.stderr[-4000:]
    return pd.read_csv(folder / f"results/deliveries/{model}.tsv", sep="\t").fillna(
        {"scene": "", "bands": "", "findings": ""}
    )


@pytest.mark.slow
def test_the_package_holds_all_inputs_and_nothing_of_the_truth(handed):
    package = handed / "results/handover"
    sums = dict(
        reversed(line.split("  ")) for line in (package / "SHA256SUMS").read_text().splitlines()
    )
    files = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    assert files - {"SHA256SUMS"} == set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((package / name).read_bytes()).hexdigest() == digest
    truth = rasterio.open(handed / f"place/frames/{TRUTH}.tif").read()
    half = json.loads((package / "requests.json").read_text())["scenes"][0]
    assert half["scene"] == "half" and TRUTH not in [c["date"] for c in half["context"]]
    hidden = rasterio.open(package / "scenes/half/target_mask.tif").read(1) == 1
    assert hidden.any()
    for path in (package / "scenes/half").glob("*.tif"):
        with rasterio.open(path) as image:
            if image.count == len(truth):
                assert not (image.read()[:, hidden] == truth[:, hidden]).all(axis=0).any()


@pytest.mark.slow
def test_the_self_check_needs_nothing_but_python_and_knows_what_fits(handed, tmp_path):
    def check(answers: Path) -> subprocess.CompletedProcess:
        words = [sys.executable, "-I", "-S", "results/handover/self_check.py", answers]
        return subprocess.run(words, cwd=handed, capture_output=True, text=True)

    done = check(handed / "theirs")
    assert (done.returncode, done.stdout) == (0, "2 of 2 answers fit\n"), done.stderr
    with rasterio.open(handed / "theirs/half.tif") as image:
        profile, data = image.profile, image.read()
    profile.update(count=2, width=70, transform=profile["transform"].translation(5, 5))
    with rasterio.open(tmp_path / "half.tif", "w", **profile) as image:
        image.write(data[:2, :, :70])
    (tmp_path / "covered.tif").write_bytes(b"no image")
    (tmp_path / "other.tif").write_bytes(b"")
    found = check(tmp_path)
    assert found.returncode == 1
    for word in (
        "half.tif: has 70 x 64 pixels instead of 80 x 64",
        "half.tif: lies at",
        "half.tif: band 1 is described None",
        "covered.tif: is no TIFF",
        "other.tif: was not asked for",
        "0 of 2 answers fit",
    ):
        assert word in found.stdout


@pytest.mark.slow
def test_what_fits_is_said_to_fit_and_is_scored(handed):
    table = verdicts(handed, "theirs")
    assert table.verdict.tolist() == ["fits", "fits"], table.to_string()
    assert table.bands.tolist() == ["6 of 6"] * 2 and (table.answered == 1).all()
    done = snakemake(handed, "metrics")
    assert done.returncode == 0, done.stderr[-4000:]
    scores = pd.read_csv(handed / "results/metrics.csv")
    assert set(scores.model) == {"theirs"} and set(scores.scene) == {"half", "covered"}


@pytest.mark.slow
def test_each_fault_of_a_delivery_is_named(handed):
    """The unit, the offset, a copy of the truth and one of the clouds, an empty file."""
    spoilt = handed / "spoilt"
    spoilt.mkdir()
    with rasterio.open(handed / "theirs/half.tif") as image:
        profile, data = image.profile, image.read()
        names = image.descriptions
    truth = rasterio.open(handed / f"place/frames/{TRUTH}.tif").read()
    cloudy = rasterio.open(handed / "results/handover/scenes/half/target.tif").read()

    def deliver(values, dtype="uint16"):
        with rasterio.open(spoilt / "half.tif", "w", **(profile | {"dtype": dtype})) as image:
            image.write(values.astype(dtype))
            image.descriptions = names

    cases = [
        (data / 100, "float32", "does not fit", "percent"),
        (data, "float32", "does not fit", "x 10000"),
        (data + 1000, "uint16", "does not fit", "offset of 1000 DN was not taken off"),
        (truth, "uint16", "doubtful", "equal the truth to the last digit"),
        (cloudy, "uint16", "doubtful", "equal the cloudy target to the last digit"),
        (np.zeros_like(data), "uint16", "does not fit", "answers no hidden pixel"),
    ]
    (spoilt / "unknown.tif").write_bytes(b"")
    model = External(ModelSpec("spoilt", "external", options={"folder": str(spoilt)}))
    scenes = [load_scene(p) for p in sorted((handed / "results/scenes").glob("*/scene.json"))]
    for values, dtype, verdict, word in cases:
        deliver(values, dtype)
        table = check_delivery(model, scenes)
        row = table[table.scene == "half"].iloc[0]
        assert row.verdict == verdict and word in row.findings, (word, row.to_dict())
    assert (table[table.scene == "covered"].verdict == "missing").all()
    assert table[table.scene == ""].file.str.endswith("unknown.tif").all()


@pytest.mark.slow
def test_answers_that_lie_in_the_package_outlive_another_handover(handed, tmp_path):
    scenes = [load_scene(p) for p in sorted((handed / "results/scenes").glob("*/scene.json"))]
    write_handover(scenes, tmp_path)
    sums = (tmp_path / "SHA256SUMS").read_text()
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/half.tif").write_bytes(b"an answer")
    (tmp_path / "scenes/gone").mkdir()
    write_handover(scenes, tmp_path)
    assert (tmp_path / "answers/half.tif").read_bytes() == b"an answer"
    assert (tmp_path / "SHA256SUMS").read_text() == sums
    assert not (tmp_path / "scenes/gone").exists()


@pytest.mark.slow
def test_a_scene_without_cloud_is_not_called_unanswered(handed):
    scene = load_scene(handed / "results/scenes/half/scene.json")
    clear = handed / "clear_mask.tif"
    with rasterio.open(scene.target.mask) as mask, rasterio.open(clear, "w", **mask.profile) as out:
        out.write(np.zeros((mask.count, mask.height, mask.width), np.uint8))
    frames = tuple(replace(f, mask=clear) if f.role == "target" else f for f in scene.frames)
    model = External(ModelSpec("theirs", "external", options={"folder": str(handed / "theirs")}))
    verdict = judge(model, replace(scene, frames=frames))
    assert verdict.verdict == "fits" and np.isnan(verdict.answered)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["collection", "item collection"])
def test_a_stac_collection_may_be_delivered(handed, tmp_path, form):
    scenes = [load_scene(p) for p in sorted((handed / "results/scenes").glob("*/scene.json"))]
    items = [
        {
            "type": "Feature",
            "id": "half",
            "properties": {"datetime": "2020-01-01T00:00:00Z"},
            "assets": {
                "bands": {"href": "half.tif", "type": "image/tiff", "roles": ["data"]},
                "other": {"href": "covered.tif", "type": "image/tiff"},
            },
        },
        {
            "type": "Feature",
            "id": "their-name",
            "properties": {"datetime": "2020-05-11T10:00:00Z"},
            "assets": {"image": {"href": "covered.tif", "type": "image/tiff; application=geotiff"}},
        },
    ]
    for name in ("half.tif", "covered.tif"):
        (tmp_path / name).write_bytes((handed / "theirs" / name).read_bytes())
    path = tmp_path / "collection.json"
    if form == "collection":
        for item in items:
            (tmp_path / f"{item['id']}.json").write_text(json.dumps(item))
        links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in items]
        path.write_text(json.dumps({"type": "Collection", "links": links}))
    else:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    model = External(ModelSpec("theirs", "external", options={"collection": str(path)}))
    table = check_delivery(model, scenes)
    assert table.verdict.tolist() == ["fits", "fits"], table.to_string()


@pytest.mark.slow
def test_a_row_that_is_no_delivery_is_refused_before_the_first_job(handed):
    for config, word in (([], "No delivery is named"), (["model=damped"], "kind 'damped'")):
        done = snakemake(handed, "check_delivery", *(["--config", *config] if config else []))
        assert done.returncode and word in done.stderr + done.stdout
