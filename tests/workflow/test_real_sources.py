"""From SAFE products and a split of a dataset to the report; patches share their jobs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import rasterio
from tests import safe_products as safe
from tests.small_run import snakemake, write_config

HEADER = "scene\tsource\tpath\ttarget_date\tprotocol\treference_date\tsplit\n"
PATCH = "ROIs1970_fall_{kind}/{kind}_139/ROIs1970_fall_{kind}_139_p{number}.tif"


@pytest.fixture(scope="module")
def run(tmp_path_factory, shared):
    """Three patches of a test split, and a place with three dates as SAFE products.

    The second date was harmonised by somebody who left the metadata as they were.
    """
    folder = tmp_path_factory.mktemp("sources")
    for kind in ("s1", "s2", "s2_cloudy"):
        real = shared / "data/sen12mscr" / PATCH.format(kind=kind, number=839)
        for number in (839, 840, 841):
            link = folder / "sen12mscr" / PATCH.format(kind=kind, number=number)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real)
    template = shared / "data/stac/safe_metadata" / safe.L2A_0509
    for date, shift in (("2023-08-13", 1000), ("2023-08-15", 0), ("2023-08-18", 1000)):
        token, dn = date.replace("-", ""), {}
        for band in ("B02", "B03", "B04", "B08"):
            (path,) = (shared / "data/mapchete_eo").glob(f"*_{token}_0_L2A_{band}.tif")
            with rasterio.open(path) as dataset:
                image = dataset.read(1)[:120, :120]
            dn[band] = np.where(image > 0, image + shift, 0).astype(np.uint16)
        scl = safe.real_scl(shared, date, np.s_[0:120], np.s_[0:120])
        safe.write_product(folder / "safe", template, dn, scl=scl, date=date, tile="33TWL")
    write_config(
        folder,
        [],
        run_models=["cloudy"],
        inference={"shard_size": 3},
        sources={"selection": {"truth_cloud": 0.1}},
    )
    rows = [
        "cr\tsen12mscr\tsen12mscr\t2018-10-01\tpaired\t\ttest",
        "place\tsafe\tsafe\t2023-08-18\tpaired\tauto\t",
    ]
    (folder / "scenes.tsv").write_text(HEADER + "\n".join(rows) + "\n")
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_one_job_serves_a_shard_of_patches_in_every_stage(run):
    for stage in ("assemble_scene", "mask_scene", "coregister_scene"):
        logs = sorted(path.stem for path in (run / "results/logs" / stage).iterdir())
        assert logs == ["shard-0000", "shard-0001"], stage
    patches = json.loads((run / "results/shards/shard-0000/scene.json").read_text())
    assert list(patches["scenes"]) == [f"cr-ROIs1970_fall_139_p{n}" for n in (839, 840, 841)]
    scenes = sorted(path.name for path in (run / "results/scenes").iterdir())
    assert scenes == [f"cr-ROIs1970_fall_139_p{n}" for n in (839, 840, 841)] + ["place"]


def test_truth_and_offset_of_products_reach_the_report(run):
    scene = json.loads((run / "results/scenes/place/scene.json").read_text())
    by_role = {item["properties"]["unveil:role"]: item for item in scene["features"]}
    assert by_role["target"]["properties"]["datetime"].startswith("2023-08-18")
    assert by_role["reference"]["properties"]["datetime"].startswith("2023-08-13")
    assert by_role["target"]["properties"]["unveil:offset_from"] == "BOA_ADD_OFFSET"
    page = (run / "results/report/index.html").read_text()
    assert "BOA_ADD_OFFSET" in page
    assert page.count("cannot carry the offset -1000") == 1
    assert "place" in (run / "results/metrics.csv").read_text()


def test_nothing_is_left_to_do(run):
    again = snakemake(run, "--dry-run")
    assert again.returncode == 0, again.stderr[-2000:]
    # The manifest, and so the report, names the command, which is another one now.
    jobs = re.findall(r"^(assemble|mask|coregister|infer|score)\w+", again.stdout, re.M)
    assert jobs == []
