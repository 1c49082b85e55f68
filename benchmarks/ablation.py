"""What does each kind of training sample buy on a place that was left out?

Trains the run ``chronos-small`` of config/training.yaml anew for a few steps, each time with
one thing taken away, and judges it on the run's held-out places: as they are, with clouds
that the mask missed, and with no clear pixel in the target. The number is the error of the
network over that of the closed form it starts from, geometric mean over scenes: below 1 the
training helps. The first rows differ by their seed alone and show the noise.

    snakemake --cores 2 results/training/chronos-small/chronos-small.npz   # fetches the series
    python benchmarks/ablation.py [--steps 500] [--update docs/models.md]
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import update

from unveil.config import read_training
from unveil.models.chronos.learning import score_samples
from unveil.training.loop import TrainingPlan, train
from unveil.training.run import make_task, set_threads
from unveil.training.tasks.series import COMPLETE, OVERCAST

LOG = logging.getLogger("ablation")
ROOT = Path(__file__).resolve().parents[1]
RUN = "chronos-small"
JUDGED = {
    "as they are": COMPLETE,
    "clouds missed": replace(COMPLETE, missed=1.0),
    "overcast": OVERCAST,
}


def without(**samples: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets sample options of a run."""
    return lambda run: run["samples"].update(samples)


def without_images(run: dict[str, Any]) -> None:
    """Keep one image for parcels that follow other places."""
    run["images"] = run["images"][:1]


def without_places(run: dict[str, Any]) -> None:
    """Keep one series."""
    run["series"] = dict(list(run["series"].items())[:1])


def another_seed(run: dict[str, Any]) -> None:
    """Change nothing but the seed."""
    run["plan"]["seed"] += 1


VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "everything": lambda run: None,
    "everything, another seed": another_seed,
    "one series only": without_places,
    "one image only": without_images,
    "no parcels that follow other places": without(synthetic=0.0),
    "no clouds that the mask missed": without(missed=0.0),
    "no further gaps": without(gaps=0.0),
    "no overcast targets": without(overcast=0.0),
    "no cloud shapes of other places": without(borrowed=0.0),
    "no radar": without(radar=0.0),
    "no change of brightness": without(radiometry=False),
}


def paths_of(run: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Return the files that `snakemake train` fetched, by id."""
    series = {
        name: folder / "series" / f"{name}.npz" for name in (*run["series"], *run["held_out"])
    }
    images = {name: folder / "images" / f"{name}.tif" for name in run["images"]}
    missing = {k: v for k, v in images.items() if not v.exists()}
    return series | images | {name: folder / "series" / f"{name}.npz" for name in missing}


def judge(run: dict[str, Any], folder: Path, plan: TrainingPlan, seed: int) -> list[float]:
    """Train one variant and return its relative errors in the order of :data:`JUDGED`."""
    task = make_task(run, paths_of(run, folder))
    with tempfile.TemporaryDirectory() as scratch:
        network, _ = train(task, plan, folder=Path(scratch))
    same = replace(plan, seed=seed)
    return [
        score_samples(network, task.held_out_samples(same, options))["relative_mae"]
        for options in JUDGED.values()
    ]


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "training")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--update", type=Path, metavar="FILE", help="document to renew")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_threads(2)
    whole = read_training(ROOT / "config" / "training.yaml")["runs"][RUN]
    lines = ["| trained with | " + " | ".join(JUDGED) + " |", "|---|" + "---|" * len(JUDGED)]
    for number, name in enumerate(given.only, 1):
        LOG.info("%d of %d: %s", number, len(given.only), name)
        run = copy.deepcopy(whole)
        VARIANTS[name](run)
        plan = TrainingPlan(**run["plan"] | {"steps": given.steps, "checkpoint_every": given.steps})
        scores = judge(run, given.folder, plan, whole["plan"]["seed"])
        gc.collect()  # a task and its pool of scenes, about a gigabyte, refer to each other
        lines.append(f"| {name} | " + " | ".join(f"{score:.3f}" for score in scores) + " |")
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if given.update:
        update(
            given.update, "ablation", text, f"python benchmarks/ablation.py --steps {given.steps}"
        )


if __name__ == "__main__":
    main()
