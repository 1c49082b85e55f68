"""How near to the truth do methods come on a series that no network here has seen?

The Romanian Sentinel-2 series of the package nrt-data (L2A, 100 x 100 px, 140 dates): every
date that is clear over the whole place is withheld in turn and hidden under the shape of a
real cloud of another date. Methods see six dates before and six after with their SCL masks.
Errors are of hidden pixels, mean absolute in reflectance over the bands, averaged over
dates; intervals are bootstrapped over dates.

    python benchmarks/accuracy.py NRT_FOLDER [--dates 20] [--adapt] [--missed 0.2] [--markdown FILE]

NRT_FOLDER is the folder ``nrt/data`` of the unpacked package ``nrt==0.2.1``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from unveil.bands import CLEAR, CLOUD, CORE6, NODATA, REFLECTANCE_SCALE
from unveil.classes import SCL_TO_CLASS
from unveil.config import read_yaml
from unveil.metrics.uncertainty import Calibration
from unveil.models.base import Model, ModelSpec
from unveil.models.registry import create
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene, is_clear, is_occluded
from unveil.training.series import Series, load_series

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
FILES = {
    "10m": (("B2", "B3", "B4", "B8"), "sentinel2_cube_subset_romania_10m.nc"),
    "20m": (("B8A", "B11"), "sentinel2_cube_subset_romania_20m.nc"),
}
"""The six core bands; those of 20 m are repeated on the 10 m grid."""


def read_place(path: Path) -> Series:
    """Read the Romanian series from its folder, or one that `snakemake train` fetched."""
    if path.suffix == ".npz":
        return load_series(path, name=path.stem)
    stacks = []
    for bands, name in FILES.values():
        with h5py.File(path / name) as file:
            values = np.stack([file[band][:] for band in bands], axis=1)
            times = 100 // values.shape[-1]
            stacks.append(values.repeat(times, axis=-1).repeat(times, axis=-2))
            if times == 1:
                scl, days = file["SCL"][:], file["time"][:]
    dn = np.concatenate(stacks, axis=1)
    lookup = np.full(256, NODATA, np.uint8)
    for value, code in SCL_TO_CLASS.items():
        lookup[value] = code
    reflectance = np.where(dn == 0, np.nan, dn.astype(np.float32) / REFLECTANCE_SCALE)
    start = dt.date(2015, 8, 1).toordinal()
    bbox = (22.0, 44.0, 28.0, 48.0)
    return Series("romania", CORE6, reflectance.astype(np.float32), lookup[scl], start + days, bbox)


def cases(
    place: Series, cover: float, *, dates: int | None, missed: float
) -> Iterator[tuple[Inputs, np.ndarray, np.ndarray]]:
    """Yield inputs, truth and what is hidden for each withheld date."""
    rng = np.random.default_rng(round(100 * cover))
    share = is_clear(place.classes).mean(axis=(1, 2))
    clouds = is_occluded(place.classes)
    targets = [t for t in range(1, len(share) - 1) if share[t] >= LEAST_CLEAR]
    if dates:
        targets = targets[:: max(1, len(targets) // dates)][:dates]
    usable = share >= 0.05
    for t in targets:
        shape = np.ones_like(clouds[t]) if cover == 1 else _cloud(clouds, cover, rng)
        known = is_clear(place.classes[t]) & np.isfinite(place.reflectance[t]).all(axis=0)
        before = [i for i in range(t) if usable[i] and place.days[i] < place.days[t]][-FRAMES:]
        after = [i for i in range(t + 1, len(share)) if usable[i] and place.days[i] > place.days[t]]
        frames = [*before, *after[:FRAMES]]
        classes = place.classes[frames]
        if missed:
            classes = _unmask(classes, missed, rng)
        inputs = Inputs(
            bands=place.bands,
            target=np.where(shape, np.float32(0.5), place.reflectance[t]),
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


def _cloud(clouds: np.ndarray, cover: float, rng: np.random.Generator) -> np.ndarray:
    """Draw one of the three real cloud masks nearest in cover, mirrored at random."""
    gap = np.abs(clouds.mean(axis=(1, 2)) - cover) + rng.uniform(0, 0.02, len(clouds))
    mask = clouds[rng.choice(np.argsort(gap)[:3])]
    return mask[:: rng.choice((1, -1)), :: rng.choice((1, -1))]


def _unmask(classes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Call a share of the cloudy pixels clear, in blobs of 10 x 10 px."""
    height, width = classes.shape[1:]
    small = rng.random((len(classes), -(-height // 10), -(-width // 10))) < share
    blobs = small.repeat(10, axis=1).repeat(10, axis=2)[:, :height, :width]
    return np.where(blobs & is_occluded(classes), CLEAR, classes).astype(np.uint8)


def load_models(names: list[str]) -> dict[str, Model]:
    """Return models of config/models.yaml by id; ``ID+adapt`` adapts to each scene."""
    table = read_yaml(ROOT / "config" / "models.yaml")
    models = {}
    for name in names:
        spec = ModelSpec.from_row(name, table[name.removesuffix("+adapt")])
        if name.endswith("+adapt"):
            spec = replace(spec, options=spec.options | {"adapt": "scene", "adapt_minutes": 1.0})
        models[name] = create(spec)
        models[name].load()
    return models


def run(place: Series, models: dict[str, Model], *, dates: int | None, missed: float):
    """Return errors ``{model: {cover: [MAE of each date]}}`` and calibration by cover."""
    errors: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    calibration: dict[float, Calibration] = defaultdict(Calibration)
    for cover in COVERS:
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
                    calibration[cover].update(gap, answer.std[:, use])
            if number % 10 == 0:
                LOG.info("cover %g: %d dates done", cover, number)
    return errors, calibration


def scene_of(place: Series, inputs: Inputs) -> Scene:
    """Return the scene that methods are told about."""
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


def table(errors, calibration) -> str:
    """Return the results as Markdown."""
    heads = [f"{100 * cover:.0f} % cloud" for cover in COVERS]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name, by_cover in errors.items():
        cells = []
        for cover in COVERS:
            if not by_cover[cover]:
                cells.append("no answer")
                continue
            mean, low, high = interval(by_cover[cover])
            cells.append(f"{mean:.4f} ({low:.4f} to {high:.4f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if calibration:
        found = [calibration[cover].metrics() for cover in COVERS]
        for key in ("coverage_68", "coverage_95", "MAE_keep_75", "MAE_keep_50", "MAE_keep_25"):
            cells = " | ".join(f"{metrics[key]:.4f}" for metrics in found)
            lines.append(f"| {key} of the network | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, help="nrt/data of the package nrt, or an .npz")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--dates", type=int, help="withheld dates, evenly picked; default all")
    parser.add_argument("--missed", type=float, default=0.0, help="share of unmasked cloud")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    errors, calibration = run(
        read_place(given.place),
        load_models(given.models),
        dates=given.dates,
        missed=given.missed,
    )
    text = table(errors, calibration)
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
