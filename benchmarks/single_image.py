"""Train the networks of one image away from the workflow, and say what each part of it is worth.

    python benchmarks/single_image.py pack shots.xz --cache .cache/unveil/packages
    KERAS_BACKEND=jax python benchmarks/single_image.py train shots.xz OUT --minutes 5
    python benchmarks/single_image.py adopt OUT --evidence results/single_image/metrics.csv

``pack`` writes the images of the runs ``dsen2cr-*`` of config/training.yaml as one small file: DN
rounded to 8, at most ten clear images and twelve pairs a place, six windows of the large image.
``train`` needs that file and Keras, no library of rasters. It trains
the three runs and then one row of the ablation after another as far as the minutes go, each with
as many steps as its share of the time holds, and writes ``ID.npz`` for each run and
``single_image.json`` with all scores. ``adopt`` ships them with their cards.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT / "scripts")
LOG = logging.getLogger("single_image")

RUNS = ("dsen2cr-small", "dsen2cr-small-sar", "dsen2cr-small-l2a")
KEPT = ("sen12mscr-spring-39-100", "sen12mscr-spring-39-500")
"""Places that no run has seen or stopped by."""
MOST = {"clear": 10, "pairs": 12}
WINDOW = 256
WINDOWS = 6
"""Of an image that is larger."""
MAIN_SHARE = 0.6
"""Of the time, for the runs; the rest is for the ablation."""
WARM = 20
"""Steps before the speed is measured, and steps by which it is."""
VALIDATIONS = 10
AHEAD = 6
"""Steps made ahead."""
FULL_SIZE = {"features": 256, "blocks": 16}


@dataclass(frozen=True)
class Row:
    """One network to train.

    Attributes:
        id: what the scores call it; a run's weights have its name.
        run: the run of config/training.yaml that it changes.
        recipe: what of its samples.
        network: what of its network.
        swap: train on the pairs held out and kept, and judge on those trained on.
    """

    id: str
    run: str = RUNS[0]
    recipe: Mapping[str, Any] | None = None
    network: Mapping[str, Any] | None = None
    swap: bool = False


ANOTHER_SEED = "another seed"
ABLATION = (
    Row(ANOTHER_SEED),
    Row("regions swapped", swap=True),
    Row("L1 in place of CARL", recipe={"loss": "l1"}),
    Row("simulated clouds only", recipe={"real": 0.0}),
    Row("real pairs only", recipe={"real": 1.0, "pretrain": 0.0}),
    Row("sees 18 pixels", network={"dilations": [1]}),
)
SWAPPED = "sen12mscr-fall-136-"
"""Places that change sides when regions are swapped."""


def pack(path: Path, cache: Path) -> None:
    """Write the shots of all runs' places as one file."""
    import tempfile

    from unveil.config import read_training
    from unveil.masks.mask_scene import detect_clouds_and_shadows
    from unveil.places.fetch import fetch_series
    from unveil.places.folder import with_masks
    from unveil.training.datasets import fetch_image, read_clear_image
    from unveil.training.shots import shots_of, write_shots

    table = read_training(ROOT / "config" / "training.yaml")
    names = {name for run in RUNS for name in _places_of(table["runs"][run])}
    shots = []
    for name in sorted(names | set(KEPT)):
        if name in table["images"]:
            with tempfile.TemporaryDirectory() as folder:
                image = Path(folder) / f"{name}.tif"
                fetch_image(table["images"][name], cache=cache, output=image)
                series = read_clear_image(image, name=name, weight=1.0)
        else:
            series = fetch_series(table["series"][name], name=name, cache=cache)
            series = with_masks(series, detect_clouds_and_shadows)
        days = table["runs"][RUNS[0]]["samples"]["pair_days"]
        found = [w for s in shots_of(series, pair_days=days) for w in _windows(s)]
        clear = _spread([s for s in found if s.cloudy is None], MOST["clear"])
        pairs = _spread([s for s in found if s.cloudy is not None], MOST["pairs"])
        kept = [replace(s, weight=1 / (len(clear) + len(pairs))) for s in (*clear, *pairs)]
        print(f"{name}: {len(clear)} clear, {len(pairs)} pairs, {kept[0].shape}")
        shots += kept
    write_shots(path, shots, notes={run: table["runs"][run] for run in RUNS})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(shots)} shots")


def _places_of(run: Mapping[str, Any]) -> list[str]:
    return [*run["series"], *run["held_out"], *run["images"]]


def _windows(shot: Any) -> list[Any]:
    """Return windows of a shot that is much larger than one, spread over it."""
    height, width = shot.shape
    if min(height, width) < 3 * WINDOW or shot.cloudy is not None:
        return [shot]
    corners = [(r, c) for r in range(0, height - WINDOW, WINDOW) for c in range(0, width, WINDOW)]
    cut = [shot.clear[:, r : r + WINDOW, c : c + WINDOW] for r, c in corners]
    full = [image for image in cut if image.shape[2] == WINDOW and (image > 0).all()]
    return [replace(shot, clear=image) for image in _spread(full, WINDOWS)]


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly chosen."""
    if len(items) <= most:
        return list(items)
    return [items[n] for n in np.linspace(0, len(items) - 1, most).astype(int)]


def adopt(output: Path, cache: Path, evidence: Path | None) -> None:
    """Ship what was trained: weights and cards, which say first what the evidence says."""
    import tempfile

    from unveil.config import read_training
    from unveil.places.fetch import fetch_series
    from unveil.places.series import save_series
    from unveil.training.card import rounded, write_card, write_weights
    from unveil.training.datasets import fetch_image
    from unveil.training.loop import Progress, TrainingPlan
    from unveil.training.run import places_of

    table = read_training(ROOT / "config" / "training.yaml")
    report = json.loads((output / "single_image.json").read_text())
    for name in RUNS:
        run, facts = table["runs"][name], report["rows"][name]
        weights = ROOT / "resources" / "weights" / f"{name}.npz"
        with np.load(output / weights.name) as arrays:
            write_weights(weights, dict(arrays))
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            for one in _places_of(run):
                paths[one] = Path(folder) / f"{one}.npz"
                if one in table["images"]:
                    paths[one] = paths[one].with_suffix(".tif")
                    fetch_image(table["images"][one], cache=cache, output=paths[one])
                else:
                    series = fetch_series(table["series"][one], name=one, cache=cache)
                    save_series(series, paths[one])
            places = places_of(run, table["images"] | table["series"], paths)
        log = facts["log"]
        verdict = _verdict(name, evidence) if evidence else []
        write_card(
            weights.with_suffix(".json"),
            weights=weights,
            run=run | {"limits": [*verdict, *run["limits"]]},
            architecture={"name": "DSen2-CR", "parameters": facts["parameters"], **run["network"]},
            places=places,
            plan=replace(TrainingPlan(**run["plan"]), steps=facts["steps"]),
            how={
                "loss": "cloud-adaptive regularised L1 of DSen2-CR, lambda 1",
                "clouds": "simulated clouds with shadows and haze on clear images, then real pairs",
                "samples": run["samples"],
                "trained_on": f"one GPU, Keras on {report['backend']}; at most ten clear images "
                "and twelve pairs a place",
            },
            progress=Progress(facts["steps"], facts["seconds"], facts["best_step"]),
            validation={
                "what": "by place that was not trained on, mean over scenes of the mean absolute "
                "error in reflectance on hidden and on clear pixels; '-pairs' are real pairs, the "
                f"others simulated clouds; best of {len(log)} validations",
                "scores": {
                    kind: {place: rounded(scores) for place, scores in by_place.items()}
                    for kind, by_place in facts["scores"].items()
                },
            },
            command=f"python benchmarks/single_image.py train, {facts['seconds']:.0f} s",
        )


def _verdict(name: str, evidence: Path) -> list[str]:
    """Return what the scores of real pairs of regions left out say of a network."""
    import csv

    with open(evidence, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "mae"]
    by_model: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["region"] == "occluded" and row["value"]:
            by_model.setdefault(row["model"], {})[row["scene"]] = float(row["value"])
    own = by_model[name]
    said = []
    for other in ("clear_mean", "inpaint"):
        both = own.keys() & by_model[other].keys()
        mine, theirs = (np.mean([by_model[m][s] for s in both]) for m in (name, other))
        word = "better" if mine < theirs else "worse"
        said.append(f"{word} than {other} ({mine:.4f} against {theirs:.4f})")
    return [
        f"On {len(own)} real pairs of regions left out its mean absolute error under cloud is "
        f"{' and '.join(said)}."
    ]


def train(
    path: Path, output: Path, *, minutes: float, main_share: float = MAIN_SHARE, toy: bool = False
) -> None:
    """Train the runs and the ablation's rows within some minutes."""
    _without_rasters()
    begun = time.monotonic()
    from unveil.training.shots import read_shots

    shots, runs = read_shots(path)
    pools: dict[tuple, Any] = {}
    rows = [*(Row(run, run) for run in RUNS), *ABLATION]
    tasks = {row.id: _task(row, runs, shots, pools, toy=toy) for row in rows}
    output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"backend": os.environ.get("KERAS_BACKEND", "tensorflow")}
    report["drawn_in_s"] = round(time.monotonic() - begun, 1)
    LOG.info("scenes drawn in %.0f s", report["drawn_in_s"])
    report["rows"] = {}
    end = begun + 60 * minutes
    reserved = (1 - main_share) * (end - time.monotonic())
    for number, row in enumerate(rows):
        main = number < len(RUNS)
        left = end - time.monotonic()
        reserve = reserved if main else 0.05 * reserved
        seconds = (left - reserve) / (len(RUNS) - number if main else len(rows) - number)
        if seconds < 5:
            LOG.warning("no time left for %s", row.id)
            continue
        task, plan = tasks[row.id]
        network, facts = fit(task, plan, seconds=seconds, seed=plan.seed + (row.id == ANOTHER_SEED))
        facts |= {"run": row.run, "scores": judge(network, task, shots, plan)}
        report["rows"][row.id] = facts
        if main:
            _save(output / f"{row.id}.npz", network)
        _write_report(output, report)
        LOG.info("%s: %s", row.id, {k: v for k, v in facts.items() if k != "scores"})
    report["full_size"] = time_full_size(toy=toy)
    _write_report(output, report)


def _without_rasters() -> None:
    """Let modules be imported that could also read rasters, where no library for that is."""
    import unveil  # which looks for the libraries themselves

    assert unveil.__name__
    for name in ("rasterio", "affine", "yaml", "jsonschema", "tqdm"):
        if find_spec(name) is None:
            children = ("", ".crs", ".enums", ".errors", ".warp", ".windows", ".transform")
            for child in (*children, "._err", ".shutil", ".io", ".vrt", ".features"):
                sys.modules[name + child] = MagicMock()


def _task(
    row: Row, runs: Mapping[str, Any], shots: Sequence[Any], pools: dict[tuple, Any], *, toy: bool
) -> tuple[Any, Any]:
    """Return the task of a row, its scenes drawn, and its plan."""
    from unveil.training.loop import TrainingPlan
    from unveil.training.tasks.single_image import Recipe, SingleImageTask

    run = runs[row.run]
    network = run["network"] | dict(row.network or {})
    samples = {k: v for k, v in run["samples"].items() if k != "pair_days"} | (row.recipe or {})
    plan = TrainingPlan(**run["plan"])
    if toy:
        samples["pool"], network["features"], network["blocks"] = 24, 8, 2
        plan = replace(plan, batch=4, crop=48, validation_crop=96)
    trained = dict.fromkeys(run["images"], 1.0) | run["series"]
    held_out = list(run["held_out"])
    if row.swap:
        swapped = [name for name in trained if name.startswith(SWAPPED)]
        trained = {n: w for n, w in trained.items() if n not in swapped}
        trained |= dict.fromkeys([*held_out, *KEPT], 1.0)
        held_out = swapped
    chosen = {
        "shots": [
            replace(s, weight=s.weight * trained[s.place]) for s in shots if s.place in trained
        ],
        "held_out": [s for s in shots if s.place in held_out],
    }
    task = SingleImageTask(network, recipe=Recipe(**samples), **chosen)
    key = (*network["bands"], row.swap)
    if key not in pools:
        # With radar and real pairs, for all rows of these bands and places.
        radar = any(shot.radar is not None for shot in chosen["shots"])
        pools[key] = SingleImageTask(
            network | {"radar": radar}, recipe=Recipe(samples["pool"]), **chosen
        )
        for pool in pools[key].pools(plan):
            pool.fill(len(os.sched_getaffinity(0)))
    task.share(pools[key])
    return task, plan


def fit(task: Any, plan: Any, *, seconds: float, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train for some seconds; return the network of the best validation and what was reached."""
    import keras

    start = time.monotonic()
    keras.utils.set_random_seed(seed)
    network = task.build()
    optimiser = keras.optimizers.Nadam(plan.learning_rate / plan.warmup, global_clipnorm=1.0)
    _compile(network, task, optimiser)
    score = task.scorer(plan)
    # The first steps tell how many there will be: their rate is that of a warm-up's beginning.
    for arrays in _batches(task, plan, range(WARM)):
        network.train_on_batch(*arrays)
    score(network)
    warm = time.monotonic()
    for arrays in _batches(task, plan, range(WARM, 2 * WARM)):
        float(network.train_on_batch(*arrays))
    speed = (time.monotonic() - warm) / WARM
    scoring = time.monotonic()
    score(network)
    scoring = time.monotonic() - scoring
    left = seconds - (time.monotonic() - start) - VALIDATIONS * scoring
    plan = replace(plan, steps=2 * WARM + max(int(left * 0.95 / speed), VALIDATIONS))
    best: tuple[float, int, list[np.ndarray]] = (float("inf"), 0, network.get_weights())
    log, losses = [], []
    steps = range(2 * WARM, plan.steps)
    for step, arrays in zip(steps, _batches(task, plan, steps), strict=True):
        optimiser.learning_rate = _rate(plan, step)
        losses.append(float(network.train_on_batch(*arrays)))
        late = time.monotonic() - start > seconds
        due = (step + 1) % max(plan.steps // VALIDATIONS, 1) == 0
        if late or due or step + 1 == plan.steps:
            row = score(network)
            log.append({"step": step + 1, "loss": float(np.mean(losses))} | row)
            losses = []
            if row[task.criterion] < best[0]:
                best = (row[task.criterion], step + 1, network.get_weights())
        if late:
            break
    network.set_weights(best[2])
    facts = {"steps": step + 1, "best_step": best[1], "seconds_per_step": round(speed, 4)}
    facts |= {"seconds": round(time.monotonic() - start, 1), "parameters": network.count_params()}
    return network, facts | {"network": task.network, "recipe": vars(task.recipe), "log": log}


def _rate(plan: Any, step: int) -> float:
    """Return the learning rate of a step: a warm-up, then a cosine to zero."""
    warmup = min(plan.warmup, plan.steps // 4)
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(plan.steps - warmup, 1)
    return plan.learning_rate * (1 + np.cos(np.pi * done)) / 2


def _compile(network: Any, task: Any, optimiser: Any) -> None:
    """Give a network its loss; what is given, the truth and where it is hidden lie in one array."""
    from keras import ops

    bands = len(task.network["bands"])

    def loss(packed: Any, prediction: Any) -> Any:
        packed = ops.cast(packed, "float32")
        cloudy, clear, occluded = packed[..., :bands], packed[..., bands:-1], packed[..., -1:]
        return task.loss_of(prediction, cloudy, clear, occluded)

    network.compile(optimizer=optimiser, loss=loss, jit_compile=_jit())


def _jit() -> bool:
    return os.environ.get("KERAS_BACKEND", "tensorflow") == "jax"


def _batches(task: Any, plan: Any, steps: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what is given and what is wanted of each step, made ahead in another thread."""
    bands = len(task.network["bands"])

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        given, clear, occluded = task.draw(plan, step, np.random.default_rng([plan.seed, step]))
        wanted = np.concatenate([given[..., :bands], clear, occluded], axis=-1)
        return given.astype(np.float32), wanted

    with ThreadPoolExecutor(2) as pool:
        waiting = deque(pool.submit(make, step) for step in steps[:AHEAD])
        for step in steps:
            if step + AHEAD in steps:
                waiting.append(pool.submit(make, step + AHEAD))
            yield waiting.popleft().result()


def judge(network: Any, task: Any, shots: Sequence[Any], plan: Any) -> dict[str, Any]:
    """Return a network's errors, and the clear mean's, by place that it did not train on."""
    from unveil.training.tasks.single_image import (
        clear_mean_predictor,
        cloudy_predictor,
        evaluate,
        network_predictor,
    )

    seen = {shot.place for shot in task.shots}
    held_out, task.held_out = task.held_out, [s for s in shots if s.place not in seen]
    batches = task.validation(plan)
    task.held_out = held_out
    predictors = {
        "network": network_predictor(network),
        "cloudy_input": cloudy_predictor,
        "clear_mean": clear_mean_predictor,
    }
    return {name: evaluate(predict, batches) for name, predict in predictors.items()}


def time_full_size(*, toy: bool) -> dict[str, float]:
    """Return what a step of the published size costs: 13 bands and radar, 16 of 128 pixels."""
    import keras

    from unveil.models.dsen2cr.network import build_network

    size = {"features": 8, "blocks": 2} if toy else FULL_SIZE
    network = build_network(bands=13, radar=True, **size)
    network.compile(
        optimizer=keras.optimizers.Nadam(7e-5), loss="mean_absolute_error", jit_compile=_jit()
    )
    edge, batch = (32, 2) if toy else (128, 16)
    given = np.random.default_rng(0).random((batch, edge, edge, 15), np.float32)
    network.train_on_batch(given, given[..., :13])
    steps = 3 if toy else 20
    start = time.monotonic()
    for _ in range(steps):
        network.train_on_batch(given, given[..., :13])
    seconds = (time.monotonic() - start) / steps
    return {"parameters": network.count_params(), "seconds_per_step": round(seconds, 4)} | size


def _save(path: Path, network: Any) -> None:
    from unveil.models.dsen2cr.network import network_arrays

    arrays = {name: a.astype(np.float32) for name, a in network_arrays(network).items()}
    np.savez_compressed(path, **arrays)


def _write_report(output: Path, report: Mapping[str, Any]) -> None:
    text = json.dumps(report, indent=1, default=float)
    (output / "single_image.json").write_text(text + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("shots", type=Path)
    packing.add_argument("--cache", type=Path, default=ROOT / ".cache" / "unveil" / "packages")
    training = commands.add_parser("train")
    training.add_argument("shots", type=Path)
    training.add_argument("output", type=Path)
    training.add_argument("--minutes", type=float, default=5.0)
    training.add_argument("--share", type=float, default=MAIN_SHARE, help="of the runs")
    training.add_argument("--toy", action="store_true", help="tiny networks, to try the script")
    adopting = commands.add_parser("adopt")
    adopting.add_argument("output", type=Path)
    adopting.add_argument("--cache", type=Path, default=ROOT / ".cache" / "unveil" / "packages")
    adopting.add_argument("--evidence", type=Path, help="metrics.csv of config/single_image.yaml")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.command == "pack":
        pack(options.shots, options.cache)
    elif options.command == "adopt":
        adopt(options.output, options.cache, options.evidence)
    else:
        train(
            options.shots,
            options.output,
            minutes=options.minutes,
            main_share=options.share,
            toy=options.toy,
        )


if __name__ == "__main__":
    main()
