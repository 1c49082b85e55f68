"""Time and memory of bringing thousands of scenes together and rendering their report.

Run: ``python benchmarks/report.py``. A made-up run: every scene has the rows that the metrics stage
writes for it, with random values, and the rasters of one small scene. The stages run in processes
of their own; printed are seconds and peak memory of each, and, where there is Chromium with its
driver, the seconds until it has parsed, painted and loaded the page, by its own clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from unveil.metrics.scoring import score_scene
from unveil.metrics.stage import write_statistics
from unveil.metrics.tables import COLUMNS, TABLES, collect
from unveil.predictions import write_prediction_record
from unveil.report import ReportOptions, render
from unveil.scene import load_scene, save_scene

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
from tests.synthetic_results import MODELS, Recipe, make_results  # noqa: E402 - of this checkout

LEVELS = (0.35, 0.65)
SHARD = 50
MODEL_RAN = tuple(model for model in MODELS if model != "dsen2cr")


def measure(name: str, work: Callable[[], None]) -> float:
    """Run some work in a process of its own; print and return its seconds."""
    receive, send = multiprocessing.Pipe()

    def run() -> None:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        send.send((time.perf_counter() - start, time.process_time() - cpu, peak))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} failed")
    seconds, cpu, peak = receive.recv()
    print(f"{name:10} {seconds:6.1f} s, {cpu:6.1f} s of CPU, {peak:5.2f} GiB", flush=True)
    return seconds


def make_run(folder: Path, n_scenes: int) -> dict:
    """Make up a run below ``folder``; return the arguments of the report."""
    pattern = make_results(folder / "pattern", [Recipe("one", "one", "transplant", 0.5)], size=64)
    scene = load_scene(pattern.scenes[0])
    source = {model: pattern.predictions / model / "one.tif" for model in MODEL_RAN}
    rows = score_scene(scene, source["regressed"], model="m")
    rng = np.random.default_rng(1)
    covers = rng.uniform(0, 1, n_scenes)
    names = [f"scene-{number:05d}" for number in range(n_scenes)]
    for number, name in enumerate(names):
        home = folder / "scenes" / name
        shutil.copytree(pattern.scenes[0].parent, home, copy_function=os.link)
        (home / "scene.json").unlink()
        moved = partial(_moved, old=pattern.scenes[0].parent, new=home)
        frames = tuple(replace(f, path=moved(f.path), mask=moved(f.mask)) for f in scene.frames)
        place = f"place-{number % max(n_scenes // 5, 1):04d}"
        save_scene(replace(scene, id=name, place=place, frames=frames), home / "scene.json")
        for model, path in source.items():
            target = folder / "predictions" / model / f"{name}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
            write_prediction_record(target.parent, {"scene": name})
    _write_shards(folder, rows, names, covers, rng)
    shutil.copy(pattern.manifest, folder / "manifest.json")
    (folder / "skipped.csv").write_text("scene,model,stage,reason\n")
    scenes = [folder / "scenes" / name / "scene.json" for name in names]
    return pattern.inputs() | {
        "scenes": scenes,
        "metrics": folder / "metrics.csv",
        "skipped": folder / "skipped.csv",
        "manifest": folder / "manifest.json",
        "statistics": folder / "statistics",
        "predictions": folder / "predictions",
        "output": folder / "report" / "index.html",
        "figures": folder / "report" / "figures",
    }


def _moved(path: Path | None, *, old: Path, new: Path) -> Path | None:
    return path and new / path.relative_to(old)


def _write_shards(folder: Path, rows: list[dict], names: list[str], covers, rng) -> None:
    """Write one table per model and fifty scenes, as the metrics rule does."""
    base = pd.DataFrame(rows, columns=COLUMNS)
    for number, model in enumerate(MODEL_RAN):
        for start in range(0, len(names), SHARD):
            chosen = names[start : start + SHARD]
            table = pd.concat([base] * len(chosen), ignore_index=True)
            table["scene"] = np.repeat(chosen, len(base))
            table["model"] = model
            table["cloud_cover"] = np.repeat(covers[start : start + SHARD], len(base)).round(6)
            factor = np.repeat(rng.uniform(0.5, 1.5, len(chosen)), len(base)) * (1 + 0.1 * number)
            table["value"] = table["value"].astype(float) * factor
            path = folder / "shards" / f"{model}-{start:05d}.csv"
            path.parent.mkdir(exist_ok=True)
            table.to_csv(path, index=False)


def measure_opening(page: Path, width: int = 1400) -> None:
    """Open the page in Chromium and print by its own clock when it was parsed and drawn."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        print("opening    not measured: no chromium with its driver")
        return
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1000"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        browser.get(page.resolve().as_uri())
        found = browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => setTimeout(() => {"
            "const load = performance.getEntriesByType('navigation')[0];"
            "const paint = performance.getEntriesByType('paint').map((p) => [p.name, p.startTime]);"
            "done({...Object.fromEntries(paint), 'interactive': load.domInteractive,"
            "'loaded': load.loadEventEnd});}));"
        )
    times = ", ".join(f"{name} {value / 1000:.2f} s" for name, value in found.items())
    print(f"opening    {times}")


def main() -> None:
    """Make up the run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--picture", type=int, default=24, help="scenes in the picture")
    parser.add_argument("--folder", type=Path, help="keep the run here, and use it again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        made = folder / "inputs.pickle"
        if not made.exists():
            made.write_bytes(pickle.dumps(make_run(folder, args.scenes)))
            if args.folder:
                print(f"made {args.folder}; run again to measure")
                return
        inputs = pickle.loads(made.read_bytes())  # our own file of a moment ago
        (folder / "statistics").mkdir(exist_ok=True)
        shards = sorted((folder / "shards").glob("*.csv"))

        def aggregate() -> None:
            collect(shards, inputs["metrics"])
            write_statistics(
                metrics=inputs["metrics"],
                scenes=inputs["scenes"],
                models={model: kind for model, (_, kind, _) in MODELS.items()},
                cloud_levels=LEVELS,
                outputs={table: folder / "statistics" / f"{table}.csv" for table in TABLES},
            )

        options = ReportOptions(cloud_levels=LEVELS, max_scenes_in_picture=args.picture)
        seconds = measure("aggregate", aggregate)
        n_rows = sum(1 for _ in open(inputs["metrics"])) - 1
        seconds += measure("render", lambda: render(**inputs, options=options))
        size = inputs["output"].stat().st_size / 1e6
        n_models = len(json.loads((folder / "manifest.json").read_text())["models"]) - 1
        print(f"together   {seconds:6.1f} s; {args.scenes} scenes, {n_models} models,")
        measure_opening(inputs["output"])
        print(f"{n_rows:,} rows; page of {size:.1f} MB with {args.picture} scenes in the picture")


if __name__ == "__main__":
    main()
