"""Do transplants rank methods as really cloudy dates do?

A real pair is a cloudy target with the nearest date, at most five days away, that is clear over
the place. Of each pair three targets are made: the cloudy date itself (*real*), and the clear date
under the cloudy one's hidden pixels as protocol ``transplant`` does it, without its veil (*clean*)
and with it (*veiled*). Hidden pixels, truth and context are the same; neither date is in the
context. Where a place has no pair, clear dates get the cloud of the nearest partly cloudy date.

    python benchmarks/protocols.py FOLDER [--place ID ...] [--methods ID ...] [--update FILE]

FOLDER has a folder for each place of ``resources/places.yaml``, named by its id, with the files
that are named there. Results are kept below ``--results``
after every pair, so that a run which is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, load_models, scene_of, update
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

from unveil.assembly.planning import CLEAR_SHARE
from unveil.assembly.protocols.base import ProtocolSettings, classes_of
from unveil.assembly.protocols.registry import MAKERS
from unveil.assembly.scored import TRUTH_MARGIN_PX
from unveil.bands import CORE6, NODATA, band_positions
from unveil.classes import HIDDEN_GROWTH_PX, dilate
from unveil.code import code_of
from unveil.config import SceneRow
from unveil.guarded import read_yaml
from unveil.masks.mask_scene import detect_clouds
from unveil.models.base import Model
from unveil.places.fetch import read_layout
from unveil.places.folder import one_look_a_day, with_masks
from unveil.places.series import Series
from unveil.places.table import read_places
from unveil.raster import Grid, replacing, to_dn, to_reflectance
from unveil.records import checksum
from unveil.scene import Frame, Inputs, Scene, is_clear, is_occluded
from unveil.sources.base import SourceSeries, from_array
from unveil.sources.selection import choose_context, haze_limit

LOG = logging.getLogger("protocols")
PLACES = [place.id for place in read_places().values() if place.size and place.dates > 2]
LEFT_OUT = ("cloudy", "chronos-small-all", "chronos-small-adapted")
"""Rows of config/models.yaml that are not asked unless named: the target itself, the same under
cloud as another row, and minutes a scene."""
TRUTH_DAYS = 5
LEAST_WHOLE = 0.9
"""Share of a target that has data."""
COVERS = (0.1, 0.98)
"""Hidden share of a target: an overcast one has no pixel that a mask calls clear."""
FRAMES = 12
LEAST_USABLE = 0.05
"""Clear share of a date of the context."""
MOST_TRANSPLANTS = 8
"""Clear dates of a place without pairs."""
RINGS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 12), (13, 18), (19, 30))
"""Distances from the hidden pixels, in pixels, whose excess is kept."""
BINS = ((1, 3), (4, 8), (9, 18))
FAR = (19, 30)
"""Where little of a veil is left: what differs there is the land, or the level of the day."""
TOLERANCE, SHARE = 0.01, 0.25
LEAST_PAIRS, LEAST_PIXELS, LEAST_METHODS = 6, 500, 12
POOLED_RHO, PLACE_RHO, MEDIAN_SHARE = 0.95, 0.85, 0.30
TRIALS = ("clean", "real", "veiled")


@dataclass(frozen=True)
class Trial:
    """A target, what is hidden of it, and its truth.

    Attributes:
        inputs: what models are given.
        truth: ``(B, H, W)`` reflectance.
        scored: ``(H, W)`` bool, hidden where the truth is known.
        clear: ``(H, W)`` bool, called clear where the truth is known.
        distance: ``(H, W)`` pixels from the hidden ones.
    """

    inputs: Inputs
    truth: np.ndarray
    scored: np.ndarray
    clear: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Place:
    """A series with what choosing its dates rests on.

    Attributes:
        series: of unique days, sorted.
        grown: ``(T, H, W)`` uint8, its masks grown by :data:`HIDDEN_GROWTH_PX`.
        has_data: ``(T, H, W)`` bool.
        clear: ``(T,)`` share that is clear and has data.
        hidden: ``(T,)`` share under grown cloud and shadow.
    """

    series: Series
    grown: np.ndarray
    has_data: np.ndarray
    clear: np.ndarray
    hidden: np.ndarray

    @property
    def dates(self) -> list[str]:
        """ISO dates."""
        return [dt.date.fromordinal(int(day)).isoformat() for day in self.series.days]


def read_place(name: str, folder: Path) -> Series:
    """Read a place with its core bands; its clouds are detected where it has no masks."""
    facts = read_places()[name].facts
    names = [Path(f.get("url") or f["path"]).name for f in facts["files"]]
    series = read_layout(facts, [folder / name / file for file in names], name=name)
    series = with_masks(series, detect_clouds)
    if set(CORE6) < set(series.bands) and "B10" in series.bands:
        kept = band_positions(CORE6, series.bands)
        series = replace(series, bands=CORE6, reflectance=series.reflectance[:, kept])
    return series


def open_place(name: str, folder: Path) -> Place:
    """Read a place; of dates that are there twice, the clearer one stays."""
    series = one_look_a_day(read_place(name, folder))
    has_data = np.isfinite(series.reflectance).all(axis=1)
    clear = (is_clear(series.classes) & has_data).mean(axis=(1, 2))
    grown = np.stack([dilate(classes, HIDDEN_GROWTH_PX) for classes in series.classes])
    return Place(series, grown, has_data, clear, is_occluded(grown).mean(axis=(1, 2)))


def find_pairs(place: Place) -> tuple[list[tuple[int, int]], bool]:
    """Return (cloudy date, clear date) by position, and whether these are real pairs."""
    days = place.series.days.astype(int)
    whole = place.has_data.mean(axis=(1, 2)) >= LEAST_WHOLE
    cloudy = whole & (place.hidden >= COVERS[0]) & (place.hidden <= COVERS[1])
    targets, truths = np.flatnonzero(cloudy), _truths(place)
    pairs = []
    for t in targets:
        near = [u for u in truths if 0 < abs(days[u] - days[t]) <= TRUTH_DAYS]
        if near:
            pairs.append((int(t), int(min(near, key=lambda u: (abs(days[u] - days[t]), u)))))
    if pairs or not len(targets):
        return pairs, True
    step = max(1, len(truths) // MOST_TRANSPLANTS)
    near = [(min(targets, key=lambda t: (abs(days[u] - days[t]), t)), u) for u in truths[::step]]
    return [(int(t), int(u)) for t, u in near[:MOST_TRANSPLANTS] if t != u], False


def _truths(place: Place) -> list[int]:
    """Return the dates that may be a truth, as the workflow plans them: clear, without haze."""
    clear = [int(t) for t in np.flatnonzero(place.clear >= CLEAR_SHARE)]
    if "B02" not in place.series.bands:
        return clear
    blue = place.series.reflectance[:, place.series.bands.index("B02")]
    seen = is_clear(place.series.classes) & place.has_data
    median = {t: float(np.median(blue[t][seen[t]])) for t in clear}
    limit = haze_limit(median.values())
    return [t for t in clear if limit is None or median[t] <= limit]


def trials_of(place: Place, target: int, truth: int, *, real: bool) -> Iterator[tuple[str, Trial]]:
    """Yield the targets of a pair by name: clean, veiled, and real where it is a real pair."""
    hidden = is_occluded(place.grown[target]) & place.has_data[target]
    own = dilate(place.series.classes[truth], TRUTH_MARGIN_PX)
    known = is_clear(own) & place.has_data[truth] & place.has_data[target]
    clear = is_clear(place.grown[target]) & known
    distance = distance_transform_edt(~hidden)
    answer = place.series.reflectance[truth]

    def trial(image: np.ndarray, classes: np.ndarray, date: int) -> Trial:
        inputs = _inputs(place, image, classes, date, {target, truth})
        return Trial(inputs, answer, hidden & known, clear, distance)

    if real:
        yield "real", trial(place.series.reflectance[target], place.grown[target], target)
    for name, veil in (("clean", False), ("veiled", True)):
        yield name, trial(*_transplant(place, target, truth, veil=veil), truth)


def _transplant(
    place: Place, donor: int, truth: int, *, veil: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and grown mask of the package's own transplant."""
    dates, bands = place.dates, place.series.bands
    grid = _grid(place)
    optical = {d: from_array(_dn(x), bands) for d, x in _items(dates, place.series.reflectance)}
    masks = {d: from_array(c[None], ("CLASS",)) for d, c in _items(dates, place.series.classes)}
    row = SceneRow(
        "trial",
        source="local",
        path=place.series.id,
        target_date=dates[truth],
        protocol="transplant",
        cloud_date=dates[donor],
        veil=veil,
    )
    series = SourceSeries(grid, place.series.id, optical, masks)
    made = MAKERS["transplant"].make(row, series, ProtocolSettings(0))
    assert made.mask is not None
    image = to_reflectance(made.raster.read(Window(0, 0, grid.width, grid.height)))
    return image, dilate(classes_of(made.mask, grid), HIDDEN_GROWTH_PX)


def _items(dates: Sequence[str], arrays: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    return zip(dates, arrays, strict=True)


def _dn(reflectance: np.ndarray) -> np.ndarray:
    known = np.isfinite(reflectance).all(axis=0)
    return np.where(known, to_dn(reflectance), 0).astype(np.uint16)


def _grid(place: Place) -> Grid:
    height, width = place.grown.shape[1:]
    return Grid("EPSG:32634", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), height, width)


def _inputs(
    place: Place, image: np.ndarray, classes: np.ndarray, date: int, excluded: set[int]
) -> Inputs:
    dates, series = place.dates, place.series
    usable = [d for d, share in zip(dates, place.clear, strict=True) if share >= LEAST_USABLE]
    chosen = choose_context(usable, dates[date], FRAMES, {dates[t] for t in excluded})
    frames = [dates.index(d) for d in chosen]
    return Inputs(
        bands=series.bands,
        target=image.astype(np.float32),
        target_class=np.where(np.isfinite(image).all(axis=0), classes, NODATA).astype(np.uint8),
        target_probability=np.full(classes.shape, np.nan, np.float32),
        context=series.reflectance[frames],
        context_class=place.grown[frames],
        days=(series.days[frames] - series.days[date]).astype(np.float32),
        sar=None,
        target_date=dates[date],
        level=series.level,
    )


# --- measuring, resumably ------------------------------------------------------------------


def measure(name: str, folder: Path, models: dict[str, Model], results: Path) -> dict[str, Any]:
    """Measure a place, or what is missing of it, and return what is known of it.

    The file ``PLACE.json`` has of every pair its dates, its hidden share, the excess of its
    targets by band and ring (sum and number of pixels), and the error of every method.
    """
    path = results / f"{name}.json"
    made_from = _identity(name)
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("made_from") != made_from:
        known = {"made_from": made_from, "pairs": {}}
    place = open_place(name, folder)
    pairs, real = find_pairs(place)
    known |= {"bands": list(place.series.bands), "real": real}
    begin, worked = time.monotonic(), 0
    for number, (target, truth) in enumerate(pairs, 1):
        key = f"{place.dates[target]} {place.dates[truth]}"
        pair = known["pairs"].setdefault(
            key, {"hidden": round(float(place.hidden[target]), 4), "excess": {}, "errors": {}}
        )
        errors = pair["errors"]
        missing = [m for m in models if any(m not in errors.get(t, {}) for t in _trials(real))]
        if missing or not pair["excess"]:
            _measure_pair(place, target, truth, pair, {m: models[m] for m in missing}, real=real)
            _write(path, known)
            worked += 1
            left = (time.monotonic() - begin) / worked * (len(pairs) - number)
            LOG.info("%s: pair %d of %d, about %.0f s to go", name, number, len(pairs), left)
    known["pairs"] = {key: known["pairs"][key] for key in sorted(known["pairs"])}
    _write(path, known)
    return known


def _identity(name: str) -> str:
    recipe = [code_of("unveil.assembly.protocols.transplant"), name, COVERS, TRUTH_DAYS]
    return checksum([*recipe, CLEAR_SHARE, HIDDEN_GROWTH_PX, TRUTH_MARGIN_PX, FRAMES, LEAST_USABLE])


def _trials(real: bool) -> tuple[str, ...]:
    return TRIALS if real else ("clean", "veiled")


def _write(path: Path, known: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Path(temporary).write_text(json.dumps(known, indent=1))


def _measure_pair(
    place: Place,
    target: int,
    truth: int,
    pair: dict[str, Any],
    models: dict[str, Model],
    *,
    real: bool,
) -> None:
    for name, trial in trials_of(place, target, truth, real=real):
        excess = trial.inputs.target - trial.truth
        pair["excess"][name] = _excess_by_ring(excess, trial)
        errors = pair["errors"].setdefault(name, {})
        for method, model in models.items():
            errors[method] = _error(place.series, model, trial)


def _excess_by_ring(excess: np.ndarray, trial: Trial) -> dict[str, list[list[float]]]:
    found = {}
    for band, values in zip(trial.inputs.bands, excess, strict=True):
        rings = [
            values[trial.clear & (trial.distance >= first) & (trial.distance < last + 1)]
            for first, last in RINGS
        ]
        found[band] = [[float(r.sum(dtype=np.float64)), float(r.size)] for r in rings]
    return found


def _scene_of(series: Series, inputs: Inputs) -> Scene:
    """Return the scene that models are told about, context and all."""
    scene = scene_of(series, inputs)
    day = dt.date.fromisoformat(inputs.target_date)
    dates = [(day + dt.timedelta(int(days))).isoformat() for days in inputs.days]
    context = tuple(Frame(date, "context", Path(), inputs.bands) for date in dates)
    return replace(scene, frames=scene.frames + context, facts={"level": inputs.level})


def _error(series: Series, model: Model, trial: Trial) -> float | None:
    """Return the mean absolute error under cloud; None where a model has no answer."""
    scene = _scene_of(series, trial.inputs)
    if model.skip(scene):
        return None
    model.prepare(scene, [trial.inputs])
    answer = model.predict(trial.inputs).reflectance
    use = trial.scored & np.isfinite(answer).all(axis=0)
    gap = np.abs(answer - trial.truth)[:, use]
    return float(gap.mean(dtype=np.float64)) if gap.size else None


# --- what it says --------------------------------------------------------------------------


def medians(place: dict[str, Any], trial: str) -> dict[str, float]:
    """Return the median error over pairs, by method that answered all trials of some pair."""
    found: dict[str, list[float]] = {}
    for pair in place["pairs"].values():
        for method, error in pair["errors"].get(trial, {}).items():
            if error is not None:
                found.setdefault(method, []).append(error)
    return {method: float(np.median(errors)) for method, errors in found.items()}


def rank_agreement(one: dict[str, float], other: dict[str, float]) -> tuple[float, int]:
    """Return Spearman's correlation over the methods of both, and how many there are."""
    methods = sorted(set(one) & set(other))
    if len(methods) < 3:
        return float("nan"), len(methods)
    rho = spearmanr([one[m] for m in methods], [other[m] for m in methods]).statistic
    return float(rho), len(methods)


def error_table(place: dict[str, Any]) -> str:
    """Return the median errors of a place as Markdown."""
    trials = [t for t in TRIALS if t in _trials(place["real"])]
    found = {trial: medians(place, trial) for trial in trials}
    head = {"clean": "clean transplant", "real": "real pair", "veiled": "veiled transplant"}
    lines = ["| method | " + " | ".join(head[t] for t in trials) + " |", "|---" * (len(trials) + 1)]
    lines[1] += "|"
    order = found["real"] if place["real"] else found["veiled"]
    for method in sorted(order, key=lambda m: order[m]):
        cells = [f"{found[t][method]:.4f}" if method in found[t] else "no answer" for t in trials]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    if place["real"]:
        rhos = [rank_agreement(found[t], found["real"])[0] for t in trials]
        cells = ["" if t == "real" else f"{rho:.2f}" for t, rho in zip(trials, rhos, strict=True)]
        lines.append("| ranks agree with real pairs (Spearman) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_excess(
    place: dict[str, Any], trial: str, band: str, span: tuple[int, int]
) -> tuple[float, list[float], int]:
    """Return the excess over the truth within a span of distances.

    Returns:
        The mean over the pixels of all pairs, the means of the pairs, and the number of pixels.
    """
    rings = [k for k, ring in enumerate(RINGS) if span[0] <= ring[0] and ring[1] <= span[1]]
    sums = [
        np.sum([pair["excess"][trial][band][k] for k in rings], axis=0)
        for pair in place["pairs"].values()
    ]
    total = np.sum(sums, axis=0)
    each = [float(s / n) for s, n in sums if n]
    return (float(total[0] / total[1]) if total[1] else float("nan")), each, int(total[1])


def excess_table(places: dict[str, dict[str, Any]]) -> str:
    """Return acceptance (a) as Markdown: the excess of real and veiled targets by distance."""
    far = f"{FAR[0]}–{FAR[1]} px, real and veiled"
    lines = [f"| place | band | px beyond | real | veiled | {far} | | |", "|---" * 8 + "|"]
    for name, place in places.items():
        if not place["real"]:
            continue
        for band in place["bands"][:3]:  # bands are sorted by wavelength
            for span in BINS:
                real, each, pixels = mean_excess(place, "real", band, span)
                veiled, other, _ = mean_excess(place, "veiled", band, span)
                verdict, reason = _judge_excess(place, real, veiled, pixels, (each, other))
                if verdict == "missed":
                    reason += f"; {name_carrier(place, band, span)}"
                beyond = [mean_excess(place, t, band, FAR)[0] for t in ("real", "veiled")]
                where = f"| {name} | {band} | {span[0]}–{span[1]} "
                floor = f"{beyond[0]:+.4f} {beyond[1]:+.4f}"
                lines.append(
                    f"{where}| {real:+.4f} | {veiled:+.4f} | {floor} | {verdict} | {reason} |"
                )
    return "\n".join(lines)


def name_carrier(place: dict[str, Any], band: str, span: tuple[int, int]) -> str:
    """Say which pair carries most of a gap, and its gap where little of a veil is left.

    A gap that is as large there is no veil's: the land has changed between the dates of the pair,
    or the level of the day is another.
    """

    def apart(pair: dict[str, Any], where: tuple[int, int]) -> np.ndarray:
        """Return sum and number of pixels of what the veiled target is brighter by."""
        only = {"pairs": {"": pair}}
        (real, *_), (veiled, _, pixels) = (
            mean_excess(only, trial, band, where) for trial in ("real", "veiled")
        )
        return np.array([(veiled - real) * pixels if pixels else 0.0, pixels])

    gaps = {key: apart(pair, span) for key, pair in place["pairs"].items()}
    total = sum(gaps.values())
    key = max(gaps, key=lambda k: gaps[k][0] * np.sign(total[0]))
    (gap, pixels), (far, beyond) = gaps[key], apart(place["pairs"][key], FAR)
    there = f"{far / beyond:+.4f}" if beyond else "none reach"
    return (
        f"{gap / total[0]:.0%} of it is {key.partition(' ')[0]} "
        f"({gap / pixels:+.4f}, at {FAR[0]}–{FAR[1]} px {there})"
    )


def _judge_excess(
    place: dict[str, Any],
    real: float,
    veiled: float,
    pixels: int,
    pairs: tuple[list[float], list[float]],
) -> tuple[str, str]:
    gap = veiled - real
    if abs(gap) <= max(TOLERANCE, SHARE * abs(real)):
        return "agrees", ""
    each = np.subtract(*pairs[::-1])
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    spread = f"mean gap of the pairs {each.mean():+.4f} ± {error:.4f}"
    if len(place["pairs"]) < LEAST_PAIRS or pixels < LEAST_PIXELS:
        return "not judged", f"{len(place['pairs'])} pairs, {pixels} px; {spread}"
    if abs(each.mean()) <= 2 * error:
        return "missed", f"within two standard errors: {spread}"
    return "missed", spread


def rank_table(places: dict[str, dict[str, Any]]) -> str:
    """Return acceptance (b) as Markdown: ranks and medians against real pairs."""
    lines = [
        "| place | pairs | methods | ranks, clean | ranks, veiled | medians, veiled to real | |",
        "|---|---|---|---|---|---|---|",
    ]
    real = {name: place for name, place in places.items() if place["real"] and place["pairs"]}
    for name, place in real.items():
        lines.append(_rank_row(name, place, PLACE_RHO))
    if len(real) > 1:
        pooled = {"real": True, "pairs": {}}
        for name, place in real.items():
            pooled["pairs"] |= {f"{name} {key}": pair for key, pair in place["pairs"].items()}
        lines.append(_rank_row("all places", pooled, POOLED_RHO))
    return "\n".join(lines)


def _rank_row(name: str, place: dict[str, Any], least: float) -> str:
    found = {trial: medians(place, trial) for trial in TRIALS}
    rho, methods = rank_agreement(found["veiled"], found["real"])
    clean = rank_agreement(found["clean"], found["real"])[0]
    change = {m: found["veiled"][m] / found["real"][m] - 1 for m in found["real"]}
    outside = [f"{m} {c:+.0%}" for m, c in change.items() if abs(c) > MEDIAN_SHARE]
    missed = [f"ranks below {least}"] if not rho >= least else []
    missed += [f"medians off by more than {MEDIAN_SHARE:.0%}: {', '.join(outside)}"] * bool(outside)
    verdict = "; ".join(missed) or "accepted"
    if len(place["pairs"]) < LEAST_PAIRS or methods < LEAST_METHODS:
        verdict = f"not judged ({verdict})"
    spread = f"{min(change.values()):+.0%} to {max(change.values()):+.0%}" if change else ""
    return (
        f"| {name} | {len(place['pairs'])} | {methods} | {clean:.2f} | {rho:.2f} "
        f"| {spread} | {verdict} |"
    )


def draw_excess(places: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the excess of the shortest band by distance, one panel per place with real pairs."""
    import matplotlib.pyplot as plt

    real = {name: place for name, place in places.items() if place["real"] and place["pairs"]}
    figure, axes = plt.subplots(
        1, len(real), figsize=(2.4 * len(real), 2.6), sharey=True, squeeze=False
    )
    middles = [(first + last) / 2 for first, last in RINGS]
    for axis, (name, place) in zip(axes[0], real.items(), strict=True):
        band = place["bands"][0]
        for trial, style in (("real", "k-"), ("veiled", "C1--"), ("clean", "C0:")):
            axis.plot(
                middles,
                [mean_excess(place, trial, band, ring)[0] for ring in RINGS],
                style,
                label=trial,
            )
        axis.set(title=f"{name}, {band}", xscale="log", xlabel="px beyond what is hidden")
        axis.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("excess over the clear date")
    axes[0, 0].legend(frameon=False)
    _save(figure, path)


def draw_medians(places: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the median error of every method in transplants against that in real pairs."""
    import matplotlib.pyplot as plt

    real = {name: place for name, place in places.items() if place["real"] and place["pairs"]}
    figure, axes = plt.subplots(
        1, len(real), figsize=(2.4 * len(real), 2.8), sharex=True, sharey=True, squeeze=False
    )
    for axis, (name, place) in zip(axes[0], real.items(), strict=True):
        truth = medians(place, "real")
        for trial, style in (("clean", "C0o"), ("veiled", "C1s")):
            found = medians(place, trial)
            methods = sorted(set(found) & set(truth))
            axis.loglog(
                [truth[m] for m in methods],
                [found[m] for m in methods],
                style,
                label=f"{trial} transplant",
                fillstyle="none",
                markersize=4,
            )
        axis.axline((0.01, 0.01), (0.1, 0.1), color="0.6", linewidth=0.8)
        axis.set(title=name, xlabel="MAE, real pairs")
        axis.set_aspect("equal")
    axes[0, 0].set_ylabel("MAE, transplants")
    axes[0, 0].legend(frameon=False, fontsize="x-small", loc="upper left", borderpad=0)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def report(places: dict[str, dict[str, Any]]) -> str:
    """Return all tables as Markdown."""
    parts = ["Excess by distance (a):", excess_table(places), "Ranks (b):", rank_table(places)]
    for name, place in places.items():
        kind = "real pairs" if place["real"] else "transplants, no real pair"
        parts += [f"{name}, {len(place['pairs'])} {kind}:", error_table(place)]
    return "\n\n".join(parts)


def _all_methods() -> list[str]:
    """Return the rows of config/models.yaml that need no weights, or whose weights are there."""
    rows = read_yaml(ROOT / "config" / "models.yaml")
    weights = {name: row.get("weights") for name, row in rows.items() if name not in LEFT_OUT}
    return [name for name, path in weights.items() if not path or (ROOT / path).is_file()]


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="has one folder a place")
    parser.add_argument("--place", nargs="+", default=PLACES, choices=PLACES, metavar="ID")
    parser.add_argument("--methods", nargs="+", metavar="ID", help="default: all with weights")
    parser.add_argument("--results", type=Path, default=Path("results/protocols"))
    parser.add_argument("--update", type=Path, metavar="FILE", help="document to renew")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("unveil").setLevel(logging.WARNING)
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(threads, "1")  # images are small; models load TensorFlow
    models = load_models(given.methods or _all_methods())
    places = {name: measure(name, given.folder, models, given.results) for name in given.place}
    text = report(places)
    print(text)
    if given.update:
        figures = given.update.parent
        draw_excess(places, figures / "protocols_excess.png")
        draw_medians(places, figures / "protocols_medians.png")
        chosen = [f"--place {' '.join(given.place)}"] if given.place != PLACES else []
        chosen += [f"--methods {' '.join(given.methods)}"] if given.methods else []
        command = " ".join(["python benchmarks/protocols.py FOLDER", *chosen])
        update(given.update, "protocols", text, command)


if __name__ == "__main__":
    main()
