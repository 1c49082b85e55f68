"""Choose the constants of models without weights on places that train, by a grid over them.

    python benchmarks/constants.py FOLDER [--kinds KIND ...] [--places ID ...]

FOLDER is that of ``protocols.py``, whose real pairs, and veiled transplants where a place has no
pair, are used with their hidden pixels, contexts and truths. Only places that train are read;
those that judge never choose. Of each place the median error over its pairs counts, as a share
of that of the plain geometric median; the least geometric mean of these shares comes first.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import scene_of
from protocols import Trial, find_pairs, open_place, trials_of

from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.places.series import Series

LOG = logging.getLogger("constants")
TRAINING_PLACES = ("worldcereal-1", "hungary", "sabina", "mol")
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "geomedian": {"days": (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)},
    "damped": {"days": (5.0, 10.0, 20.0, 40.0)},
    "robust_line": {
        "days": (7.0, 10.0, 15.0, 20.0),
        "stiffness": (0.25, 1.0),
        "haze": (0.015, 0.03, 0.06),
        "level_pixels": (0, 500, 2000),
        "most_haze": (0.002, 0.005, 0.01),
    },
    "harmonic": {
        "order": (1, 2),
        "ridge": (0.25, 1.0, 4.0),
        "days": (5.0, 10.0, 20.0),
        "prior": (0.03, 0.1, 0.3),
        "haze": (0.03, 0.06),
    },
    "led_frames": {
        "pixels": (100, 300, 1000, 3000),
        "days": (5.0, 10.0, 20.0, 40.0),
        "haze": (0.015, 0.03, 0.06),
    },
}
SHOWN = 12


def read_trials(name: str, folder: Path) -> tuple[Series, list[Trial]]:
    """Return a place and its trials: real pairs, or veiled transplants where it has none."""
    place = open_place(name, folder)
    pairs, real = find_pairs(place)
    wanted = "real" if real else "veiled"
    made = [dict(trials_of(place, target, truth, real=real))[wanted] for target, truth in pairs]
    LOG.info("%s: %d %s", name, len(made), "real pairs" if real else "veiled transplants")
    return place.series, made


def median_error(series: Series, trials: list[Trial], spec: ModelSpec) -> float:
    """Return the median over trials of the mean absolute error at scored pixels."""
    model, errors = create(spec), []
    for trial in trials:
        model.prepare(scene_of(series, trial.inputs), [trial.inputs])
        gap = np.abs(model.predict(trial.inputs).reflectance - trial.truth)
        use = trial.scored & np.isfinite(gap).all(axis=0)
        if use.any():
            errors.append(float(gap[:, use].mean(dtype=np.float64)))
    return float(np.median(errors))


def settings(kind: str) -> Iterator[dict[str, Any]]:
    """Yield every combination of a kind's grid."""
    grid = GRIDS[kind]
    yield from (
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    )


def choose(
    kind: str, places: dict[str, tuple[Series, list[Trial]]], base: dict[str, float]
) -> list[tuple[float, dict[str, Any], list[float]]]:
    """Return (geometric mean of the shares, options, errors by place) of a kind, best first."""
    found, start, every = [], time.monotonic(), list(settings(kind))
    for number, options in enumerate(every, 1):
        spec = ModelSpec(kind, kind, options=options)
        errors = [median_error(series, trials, spec) for series, trials in places.values()]
        shares = [error / base[name] for error, name in zip(errors, places, strict=True)]
        share = float(np.exp(np.mean(np.log(shares))))
        found.append((share, options, errors))
        if number % 20 == 0:
            left = (time.monotonic() - start) / number * (len(every) - number)
            LOG.info("%s: %d of %d, about %.0f s to go", kind, number, len(every), left)
    return sorted(found, key=lambda row: row[0])


def table(
    kind: str, places: list[str], rows: list[tuple[float, dict[str, Any], list[float]]]
) -> str:
    """Return the best settings of a kind as Markdown."""
    names = list(GRIDS[kind])
    lines = [
        f"\n{kind}: {len(rows)} settings, the best {min(SHOWN, len(rows))}\n",
        f"| {' | '.join(names)} | share | {' | '.join(places)} |",
        f"|{'---|' * (len(names) + 1 + len(places))}",
    ]
    for share, options, errors in rows[:SHOWN]:
        cells = [*map(str, options.values()), f"{share:.3f}", *(f"{e:.4f}" for e in errors)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--places", nargs="+", choices=TRAINING_PLACES, default=TRAINING_PLACES)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    places = {name: read_trials(name, args.folder) for name in args.places}
    plain = ModelSpec("geomedian", "geomedian")
    base = {name: median_error(*place, plain) for name, place in places.items()}
    for kind in args.kinds:
        print(table(kind, list(places), choose(kind, places, base)), flush=True)


if __name__ == "__main__":
    main()
