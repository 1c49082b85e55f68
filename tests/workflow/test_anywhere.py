"""The workflow used from another folder, with --directory, as a module, and deployed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from tests.small_run import ROOT, ROWS, environment, write_config, write_place

from unveil import raster
from unveil.assembly.scene_table import read_scenes
from unveil.config import locate, read_models, select_models

HALF = ROWS[:1]
MODULE = """
module unveil:
    snakefile: "{snakefile}"
    config: config["unveil"]
    {prefix}

use rule * from unveil as unveil_*

rule all:
    default_target: True
    input: rules.unveil_all.input
"""
DEPLOYED = """
configfile: "config/config.yaml"

module unveil:
    snakefile: {snakefile}
    config: config

use rule * from unveil
"""
"""As `snakedeploy deploy-workflow` writes it, beside copies of config and profiles."""


def run(folder, *arguments, **variables):
    """Run Snakemake on the Snakefile of a folder, or on the one that is named."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
    )


def planned(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def import_module(folder, prefix):
    """Write a workflow that imports this one, with a place and settings of its own."""
    write_place(folder / "place")
    write_config(folder, HALF)
    settings = yaml.safe_load((folder / "mine.yaml").read_text())
    (folder / "mine.yaml").write_text(yaml.safe_dump({"unveil": settings, "other": 1}))
    text = MODULE.format(snakefile=ROOT / "workflow/Snakefile", prefix=prefix)
    (folder / "Snakefile").write_text(text)


def test_in_an_empty_folder_the_example_runs(tmp_path):
    text = planned(run(tmp_path, "--snakefile", f"{ROOT}/Snakefile", "--dry-run"))
    assert "results/report/index.html" in text
    assert "_networks" in text, "the shipped weights are found"


def test_with_directory_own_paths_lie_there_and_shipped_weights_beside_the_workflow(tmp_path):
    folder = tmp_path / "there"
    write_place(folder / "place")
    write_config(folder, HALF, models="config/models.yaml", run_models=["dsen2cr-small"])
    started = ["--snakefile", f"{ROOT}/Snakefile", "--configfile", "there/mine.yaml"]
    done = run(tmp_path, *started, "--directory", "there", "--until", "infer")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "results/predictions/dsen2cr-small/half.tif").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_table_of_ones_own_goes_before_that_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("config/scenes.tsv") == str(ROOT / "config/scenes.tsv")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/scenes.tsv").touch()
    assert locate("config/scenes.tsv") == "config/scenes.tsv"
    assert locate("config/nowhere.tsv") == "config/nowhere.tsv"
    assert locate("tests/small_run.py") == "tests/small_run.py", "no part of the workflow"


def test_in_the_checkout_paths_stay_as_they_are_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert {row.path.split("/")[0] for row in read_scenes("config/scenes.tsv")} == {"resources"}
    models = read_models("config/models.yaml")
    assert select_models(models, list(models), file="") == models


def test_as_a_module_with_a_prefix_all_results_lie_below_it_and_are_the_same(finished, tmp_path):
    import_module(tmp_path, 'prefix: "cloud"')
    done = run(tmp_path, "cloud/results/metrics.csv", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "results").exists()
    for model in ("cloudy", "damped", "regressed"):
        name = f"results/predictions/{model}/half.tif"
        np.testing.assert_array_equal(
            raster.read(tmp_path / "cloud" / name), raster.read(finished / name)
        )
    table, whole = (
        (folder / "results/metrics.csv").read_text().splitlines()
        for folder in (tmp_path / "cloud", finished)
    )
    assert set(table) == {line for line in whole if line.startswith(("half,", "scene,"))}


def test_as_a_module_without_a_prefix_results_lie_where_its_config_says(tmp_path):
    import_module(tmp_path, "")
    text = planned(run(tmp_path, "--configfile", "mine.yaml", "--dry-run"))
    assert "unveil_assemble_scene" in text
    assert " results/report/index.html" in text


def test_a_module_that_is_given_no_config_does_not_take_that_of_its_importer(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("samples: 3\n")
    text = MODULE.format(snakefile=ROOT / "Snakefile", prefix='prefix: "cloud"')
    text = text.replace('    config: config["unveil"]\n', "")
    (tmp_path / "Snakefile").write_text('configfile: "config/config.yaml"\n' + text)
    assert "cloud/results/report/index.html" in planned(run(tmp_path, "--dry-run"))


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Commit the working tree to a repository of its own."""
    folder = tmp_path_factory.mktemp("git") / "unveil"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.test", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "All"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    subprocess.run([*git, "tag", "v1"], cwd=folder, check=True)
    return folder


def deploy(committed, folder, snakefile):
    """Lay out a folder as snakedeploy does."""
    (folder / "workflow").mkdir()
    (folder / "workflow/Snakefile").write_text(DEPLOYED.format(snakefile=snakefile))
    for name in ("config", "profiles"):
        shutil.copytree(committed / name, folder / name)


def test_deployed_from_a_git_repository_jobs_run_what_was_committed(committed, tmp_path):
    source = f'gitfile("{committed}", path="workflow/Snakefile", tag="v1")'
    deploy(committed, tmp_path, source)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "caches")}
    rows = (tmp_path / "config/scenes.tsv").read_text().splitlines()
    (tmp_path / "config/scenes.tsv").write_text(f"{rows[0]}\n{rows[7]}\n")
    done = run(tmp_path, "--until", "assemble_scene", **cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results/shards/shard-0000/download.json").is_file()
    assert list((tmp_path / "caches").rglob("unveil/*/resources/published_weights.tsv"))


def test_deployed_from_github_the_whole_repository_is_unpacked_from_snakemakes_clone(
    committed, tmp_path
):
    deploy(committed, tmp_path, 'github("o/unveil", path="workflow/Snakefile", tag="v1")')
    clones = tmp_path / "caches/snakemake/snakemake/source-cache/snakemake-git-cache"
    (clones / "github.com/o").mkdir(parents=True)
    clone = ["git", "clone", "--quiet", "--bare", str(committed), "github.com/o/unveil"]
    subprocess.run(clone, cwd=clones, check=True)
    text = planned(run(tmp_path, "--dry-run", XDG_CACHE_HOME=str(tmp_path / "caches")))
    assert "results/report/index.html" in text
    assert "_networks" in text


def test_the_catalogue_of_workflows_finds_what_it_asks_for():
    about = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert os.path.isfile(ROOT / "workflow/Snakefile")
    assert about["usage"]["mandatory-flags"]["flags"] == ""
    assert "software-stack-deployment" in about["usage"]
    assert (ROOT / "config/README.md").is_file()


def test_an_unknown_key_of_a_modules_config_is_named(tmp_path):
    import_module(tmp_path, "")
    (tmp_path / "mine.yaml").write_text("unveil: {scnes: x}\n")
    done = run(tmp_path, "--configfile", "mine.yaml", "--dry-run")
    assert done.returncode != 0
    assert "unknown key 'scnes'" in done.stdout + done.stderr
    assert "use 'scenes'" in done.stdout + done.stderr
