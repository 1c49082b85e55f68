"""No old result passes as new, nothing changed on the disk is used, no other code runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.small_run import (
    BANDS,
    DATES,
    GRID,
    ROWS,
    copy_checkout,
    snakemake,
    write_config,
    write_place,
)

from unveil import raster
from unveil.code import SCRIPTS, code_files

INFERENCE = ("results/inference/_methods/shard-0000.json",)


def write_models(folder, models: dict) -> None:
    write_config(folder, ROWS[:1], run_models=list(models))
    (folder / "models.yaml").write_text(yaml.safe_dump(models))


def image(folder, model: str) -> np.ndarray:
    return raster.read(folder / f"results/predictions/{model}/half.tif")


def test_another_reader_of_weights_gives_other_predictions_and_repeats_nothing_else(tmp_path):
    snakefile = copy_checkout(tmp_path / "checkout")
    folder = tmp_path / "run"
    write_place(folder / "place")
    weights = snakefile.parent / "resources/weights/chronos-small.npz"
    network = {"kind": "chronos", "weights": str(weights)}
    write_models(folder, {"damped": {"kind": "damped"}, "network": network})
    targets = [*INFERENCE, "results/inference/_networks/shard-0000.json"]
    done = snakemake(folder, *targets, snakefile=snakefile)
    assert done.returncode == 0, done.stderr[-3000:]
    before = {model: image(folder, model) for model in ("damped", "network")}
    others = [p for p in (folder / "results").rglob("[!.]*") if "network" not in str(p)]
    times = {path: path.stat().st_mtime_ns for path in others if path.is_file()}

    reader = snakefile.parent / "scripts/unveil/weights/arrays.py"
    code = reader.read_text()
    assert "def read_arrays(" in code
    code = code.replace("def read_arrays(", "def _read_arrays(", 1) + SCALED
    reader.write_text(code)
    done = snakemake(folder, *targets, snakefile=snakefile)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (folder / "results/logs/infer/_networks/shard-0000.log").read_text()
    assert "half (1 of 1): starting" in log and "finished earlier" not in log
    assert "is made again, for another code" in log
    hidden = image(folder, "network") != before["network"]
    assert hidden.mean() > 0.05
    np.testing.assert_array_equal(image(folder, "damped"), before["damped"])
    assert {path: path.stat().st_mtime_ns for path in times} == times


SCALED = """

def read_arrays(path):
    import dataclasses
    found = _read_arrays(path)
    arrays = {name: (0.9 * a).astype(a.dtype) for name, a in found.arrays.items()}
    return dataclasses.replace(found, arrays=arrays)
"""


def test_a_job_runs_the_code_of_its_own_checkout_whichever_is_installed(tmp_path):
    """The environment has another checkout installed, which lacks the model."""
    snakefile = copy_checkout(tmp_path / "checkout")
    package = snakefile.parent / "scripts/unveil"
    replace_once(
        package / "models/registry.py",
        '"cloudy": "unveil.models.classical:Cloudy",',
        '"cloudy": "unveil.models.classical:Cloudy", "white": "unveil.models.white:White",',
    )
    replace_once(
        package / "workflow/resources.py", '"cloudy", "least_cloudy",', '"cloudy", "white",'
    )
    (package / "models/white.py").write_text(WHITE)
    folder = tmp_path / "run"
    write_place(folder / "place")
    write_models(folder, {"white": {"kind": "white"}})
    done = snakemake(folder, *INFERENCE, snakefile=snakefile)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (image(folder, "white") == 10_000).all()


def replace_once(path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))


WHITE = '''"""White: a model of the second checkout alone."""

import numpy as np

from unveil.models.base import Model, Needs, Prediction


class White(Model):
    kind, citation = "white", "test"

    @property
    def needs(self):
        return Needs()

    def predict(self, inputs):
        return Prediction(np.ones_like(inputs.target))
'''


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run of one scene and one method up to the table of metrics."""
    folder = tmp_path_factory.mktemp("scored")
    write_place(folder / "place")
    write_models(folder, {"damped": {"kind": "damped"}})
    done = snakemake(folder, "results/metrics.csv")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def exchange_raster(path) -> None:
    """Put another picture in a raster's place, whole and of the same form."""
    with raster.open_raster(path) as dataset:
        bands = dataset.descriptions
    assert bands == BANDS
    data = np.full((len(bands), *GRID.shape), 1234, np.uint16)
    raster.write_cog(path, data, GRID, descriptions=bands, nodata=0)


def edit_table(path) -> None:
    text = path.read_text()
    path.write_text(re.sub(r"(MAE),0\.\d+", r"\1,0.0001", text))
    assert path.read_text() != text


@pytest.mark.parametrize(
    ("name", "harm", "met_by", "remedy"),
    [
        ("scenes/half/truth/reference.tif", exchange_raster, "score", "assemble_scene"),
        (f"scenes/half/frames/{DATES[3]}.tif", exchange_raster, "infer_on_cpu", "assemble_scene"),
        ("predictions/damped/half.tif", exchange_raster, "score", "infer_on_cpu"),
        ("metrics/_methods/shard-0000.csv", edit_table, "collect_metrics", "score"),
    ],
)
def test_what_changed_on_the_disk_is_refused_and_the_remedy_heals_it(
    scored, tmp_path, name, harm, met_by, remedy
):
    folder = tmp_path / "run"
    shutil.copytree(scored, folder)
    table = (folder / "results/metrics.csv").read_text()
    harm(folder / "results" / name)
    refused = snakemake(folder, "results/metrics.csv", "--forcerun", met_by)
    assert refused.returncode != 0
    assert re.search(rf"{name}: is .*not as .*Remedy", refused.stderr), refused.stderr[-2000:]
    [advice] = set(re.findall(r"run again with (--forcerun \w+)", refused.stderr))
    assert advice == f"--forcerun {remedy}"
    healed = snakemake(folder, "results/metrics.csv", *advice.split())
    assert healed.returncode == 0, healed.stderr[-3000:]
    assert (folder / "results/metrics.csv").read_text() == table


def test_the_code_of_a_stage_holds_every_module_that_its_job_imported(finished, witness):
    noted = sorted(witness.glob("*.py-*.txt"))
    scripts = {path.name.partition(".")[0] for path in noted} & {p.stem for p in SCRIPTS.glob("*")}
    assert {"assemble_scene", "mask_scene", "infer", "score", "render_report"} <= scripts
    for path in noted:
        script = path.name.partition(".")[0]
        if script in scripts:
            imported = {Path(line).resolve() for line in path.read_text().splitlines()}
            assert len(imported) > 5
            assert imported <= set(code_files(script)), script


def test_memory_and_tiles_are_no_part_of_a_result(scored):
    settings = {"inference": {"memory_mb": 4321, "tile_px": 512}}
    write_config(scored, ROWS[:1], run_models=["damped"], **settings)
    done = snakemake(scored, "results/metrics.csv")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_records_of_a_run_say_which_rule_made_them(scored):
    path = scored / "results/inference/_methods/shard-0000.json"
    assert json.loads(path.read_text())["made"]["by"] == "infer_on_cpu"
