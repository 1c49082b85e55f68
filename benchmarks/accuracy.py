"""How near to the truth do models come on a series that no network here has seen?

The Romanian Sentinel-2 series of the package nrt (L2A, 100 x 100 px, 140 dates): every date
that is clear over the whole place is withheld in turn and put under a real cloud of another
date, shape and pixels. Models see six dates before and six after with their SCL masks.
Other pixels stay those of a clear day, a clean rim, which flatters models that learn from them
(``protocols.py`` measures by how much). Errors are of hidden pixels, mean absolute in
reflectance over the bands, averaged over dates; intervals are bootstrapped over dates.

    python benchmarks/accuracy.py PLACE [--dates 20] [--missed 0.2] [--models ID[:option=value] ...]

PLACE is the folder ``nrt/data`` of the unpacked package ``nrt==0.2.1``, or a series of
``snakemake train`` (``results/training/series/ID.npz``), where weights that were not trained
on it can be judged. ``--update docs/accuracy.md`` renews the table of that name there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from places import read_romania

from unveil.bands import CLEAR, CLOUD
from unveil.guarded import read_yaml
from unveil.metrics.uncertainty import Calibration
from unveil.models.base import Model, ModelSpec
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene, is_clear, is_occluded
from unveil.training.series.read import Series, load_series

LOG = logging.getLogger("accuracy")
ROOT = Path(__file__).resolve().parents[1]
COVERS = (0.2, 0.5, 0.8, 0.95, 1.0)
FRAMES = 6
LEAST_CLEAR = 0.98
MODELS = (
    "mosaic",
    "nearest",
    "linear",
    "median",
    "damped",
    "whittaker",
    "vpint2",
    "regressed",
    "dsen2cr-small",
    "chronos-small",
)
CALIBRATED = {
    "coverage_68": "within the 68 % interval",
    "coverage_95": "within the 95 % interval",
    "MAE_keep_90": "MAE of the 90 % most certain",
    "MAE_keep_75": "MAE of the 75 % most certain",
    "MAE_keep_50": "MAE of the 50 % most certain",
    "MAE_keep_25": "MAE of the 25 % most certain",
}
Errors = dict[str, dict[float, list[float]]]
Calibrations = dict[str, dict[float, Calibration]]


def read_place(path: Path) -> Series:
    """Read the Romanian series from its folder, or one that `snakemake train` fetched."""
    if path.suffix == ".npz":
        return load_series(path, name=path.stem)
    return read_romania(path)


def cases(
    place: Series, cover: float, *, dates: int | None, missed: float
) -> Iterator[tuple[Inputs, np.ndarray, np.ndarray]]:
    """Yield inputs, truth and what is hidden for each withheld date."""
    rng, unmasking = np.random.default_rng(round(100 * cover)), np.random.default_rng(1)
    share = is_clear(place.classes).mean(axis=(1, 2))
    targets = [t for t in range(1, len(share) - 1) if share[t] >= LEAST_CLEAR]
    if dates:
        targets = targets[:: max(1, len(targets) // dates)][:dates]
    usable = share >= 0.05
    for t in targets:
        shape, cloudy = _cloud(place, cover, rng)
        known = is_clear(place.classes[t]) & np.isfinite(place.reflectance[t]).all(axis=0)
        before = [i for i in range(t) if usable[i] and place.days[i] < place.days[t]][-FRAMES:]
        after = [i for i in range(t + 1, len(share)) if usable[i] and place.days[i] > place.days[t]]
        frames = [*before, *after[:FRAMES]]
        classes = place.classes[frames]
        if missed:
            classes = _unmask(classes, missed, unmasking)
        inputs = Inputs(
            bands=place.bands,
            target=np.where(shape, cloudy, place.reflectance[t]),
            target_class=np.where(shape, CLOUD, place.classes[t]).astype(np.uint8),
            target_probability=np.full(shape.shape, np.nan, np.float32),
            context=place.reflectance[frames],
            context_class=classes,
            days=(place.days[frames] - place.days[t]).astype(np.float32),
            sar=None,
            target_date=dt.date.fromordinal(int(place.days[t])).isoformat(),
            level="L2A",
        )
        yield inputs, place.reflectance[t], shape & known


def _cloud(place: Series, cover: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one of the three real clouds nearest in cover, mirrored at random.

    Returns:
        Its shape ``(H, W)`` bool, for overcast all of it, and its pixels ``(B, H, W)``.
    """
    clouds = is_occluded(place.classes)
    gap = np.abs(clouds.mean(axis=(1, 2)) - cover) + rng.uniform(0, 0.02, len(clouds))
    date = rng.choice(np.argsort(gap)[:3])
    rows, cols = (slice(None, None, int(rng.choice((1, -1)))) for _ in "xy")
    shape = np.ones_like(clouds[date]) if cover == 1 else clouds[date, rows, cols]
    pixels = place.reflectance[date][:, rows, cols]
    bright = np.nanmean(np.where(clouds[date, rows, cols], pixels, np.nan), axis=(1, 2))
    return shape, np.where(np.isfinite(pixels), pixels, bright[:, None, None])


def _unmask(classes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Call a share of the cloudy pixels clear, in blobs of 10 x 10 px."""
    height, width = classes.shape[1:]
    small = rng.random((len(classes), -(-height // 10), -(-width // 10))) < share
    blobs = small.repeat(10, axis=1).repeat(10, axis=2)[:, :height, :width]
    return np.where(blobs & is_occluded(classes), CLEAR, classes).astype(np.uint8)


def load_models(names: list[str]) -> dict[str, Model]:
    """Return models of config/models.yaml by id; ``ID:option=value`` changes one option."""
    table = read_yaml(ROOT / "config" / "models.yaml")
    models = {}
    for name in names:
        row, _, change = name.partition(":")
        spec = ModelSpec.from_row(name, table[row])
        options = dict([change.split("=")]) if change else {}
        models[name] = create(replace(spec, options=spec.options | options))
    for model in models.values():
        model.load()
    return models


def run(
    place: Series,
    models: dict[str, Model],
    *,
    covers: Sequence[float] = COVERS,
    dates: int | None,
    missed: float,
) -> tuple[Errors, Calibrations]:
    """Return errors ``{model: {cover: [MAE of each date]}}``, and calibrations likewise."""
    errors: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    calibrations: Calibrations = defaultdict(lambda: defaultdict(Calibration))
    for cover in covers:
        for number, (inputs, truth, hidden) in enumerate(
            cases(place, cover, dates=dates, missed=missed), 1
        ):
            for name, model in models.items():
                model.prepare(scene_of(place, inputs), [inputs])
                answer = model.predict(inputs)
                use = hidden & np.isfinite(answer.reflectance).all(axis=0)
                gap = (answer.reflectance - truth)[:, use]
                if gap.size:
                    errors[name][cover].append(float(np.abs(gap).mean(dtype=np.float64)))
                if answer.std is not None and gap.size:
                    calibrations[name][cover].update(gap, answer.std[:, use])
            if number % 10 == 0:
                LOG.info("cover %g: %d dates done", cover, number)
    return errors, calibrations


def scene_of(place: Series, inputs: Inputs) -> Scene:
    """Return the scene that models are told about."""
    height, width = inputs.shape
    grid = Grid("EPSG:32634", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), height, width)
    frame = Frame(inputs.target_date, "target", Path(), inputs.bands)
    return Scene("series", "simulate", place.id, grid, (frame,))


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    data = np.array(values)
    means = data[rng.integers(len(data), size=(2000, len(data)))].mean(axis=1)
    return float(data.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))


def table(errors: Errors, calibrations: Calibrations, covers: list[float]) -> str:
    """Return the results as Markdown."""
    heads = [f"{100 * cover:.0f} % cloud" for cover in covers]
    lines = ["| model | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name, by_cover in errors.items():
        found = [by_cover[cover] for cover in covers]
        cells = [
            "{:.4f} ({:.4f} to {:.4f})".format(*interval(v)) if v else "no answer" for v in found
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    compared = not all(name.startswith("chronos") for name in errors)
    for name in errors:
        if compared and name.startswith("chronos"):
            cells = [f"{gain(errors, name, cover):+.0f} %" for cover in covers]
            lines.append(f"| {name} against the best other | " + " | ".join(cells) + " |")
    for name, by_cover in calibrations.items():
        known = [by_cover[cover].metrics() for cover in covers]
        for key, text in CALIBRATED.items():
            cells = [f"{metrics[key]:.4f}" for metrics in known]
            lines.append(f"| {name}, {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain(errors: Errors, name: str, cover: float) -> float:
    """Return by how many percent the mean error is off the best of the other models'."""
    others = [
        float(np.mean(by_cover[cover]))
        for other, by_cover in errors.items()
        if not other.startswith("chronos") and by_cover[cover]
    ]
    return 100 * (float(np.mean(errors[name][cover])) / min(others) - 1)


def update(path: Path, name: str, text: str, command: str) -> None:
    """Put a table and the command that made it between the marks of its name in a document.

    Raises:
        SystemExit: if the document has no such marks.
    """
    document = path.read_text()
    begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has no '{begin}' and '{end}'")
    path.write_text(f"{head}{begin}\n`{command}`\n\n{text}\n{end}{tail}")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, help="nrt/data of the package nrt, or an .npz")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="ID[:option=value]")
    parser.add_argument("--covers", nargs="+", type=float, default=list(COVERS))
    parser.add_argument("--dates", type=int, help="withheld dates, evenly picked; default all")
    parser.add_argument("--missed", type=float, default=0.0, help="share of unmasked cloud")
    parser.add_argument("--update", type=Path, metavar="FILE", help="document to renew")
    parser.add_argument("--table", default="accuracy", help="name of the table there")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("unveil").setLevel(logging.WARNING)
    errors, calibrations = run(
        read_place(given.place),
        load_models(given.models),
        covers=given.covers,
        dates=given.dates,
        missed=given.missed,
    )
    text = table(errors, calibrations, given.covers)
    print(text)
    if given.update:
        words = [w for w in sys.argv[2:] if w not in ("--update", str(given.update))]
        command = " ".join(["python benchmarks/accuracy.py", "NRT_FOLDER", *words])
        update(given.update, given.table, text, command)


if __name__ == "__main__":
    main()
