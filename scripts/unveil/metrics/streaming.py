"""The same metrics over images that do not fit in memory, window by window.

An :class:`Accumulator` keeps float64 sums per region and band, never pixels; its size does
not grow with the image. Metrics with a neighbourhood (SSIM, gradients, seam) get windows
with a halo of :data:`HALO` pixels, of which only the core is counted, so windows add up to
exactly the whole image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unveil.bands import REFLECTANCE_SCALE
from unveil.metrics import definitions
from unveil.metrics.registry import METRICS

HALO = definitions.SSIM_RADIUS
_ERRORS = ("signed", "absolute", "square", "truth", "truth_square")
_SLOPES = ("slope_p", "slope_t", "slope_pp", "slope_tt", "slope_pt")
_PAIRS = ("across", "within")

Core = tuple[slice, slice]


@dataclass(frozen=True)
class Score:
    """One number: a metric of one region and band.

    Attributes:
        region: name of the region.
        band: ESA name, or ``all`` for pixels and bands pooled.
        metric: name of the metric, a key of :data:`unveil.metrics.registry.METRICS`.
        value: the number, None where it is undefined (no pixels, no variance).
        n_pixels: pixels that it rests on (for ``seam``: pairs across the border).
    """

    region: str
    band: str
    metric: str
    value: float | None
    n_pixels: int

    @property
    def unit(self) -> str:
        """Unit of the value, ``1`` for a pure number."""
        return METRICS[self.metric].unit


class Accumulator:
    """Sums of one prediction against one truth, over any number of windows.

    Args:
        bands: ESA names of the bands, B of them.
        regions: names of the regions, R of them; the seam is taken around ``occluded``.
    """

    def __init__(self, bands: Sequence[str], regions: Sequence[str]) -> None:
        self.bands, self.regions = tuple(bands), tuple(regions)
        shape = (len(self.bands), len(self.regions))
        self._sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(shape))
        self._counts: defaultdict[str, np.ndarray] = defaultdict(
            lambda: np.zeros(shape[1], np.int64)
        )

    def update(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        valid: np.ndarray,
        regions: Mapping[str, np.ndarray],
        *,
        core: Core | None = None,
    ) -> None:
        """Add one window.

        Args:
            prediction: ``(B, H, W)`` reflectance with the halo; ignored outside ``valid``.
            truth: ``(B, H, W)`` reflectance, likewise.
            valid: ``(H, W)`` bool: the truth is known and the model gave an answer.
            regions: ``(H, W)`` bool for each region.
            core: rows and columns to count; default all. Where the image goes on beyond
                the core the array must hold a halo of :data:`HALO` pixels (less where the
                image ends): its edge is taken for the image's border.
        """
        inside = np.zeros(valid.shape, bool)
        inside[core or (slice(None), slice(None))] = True
        members = np.stack([regions[name] for name in self.regions]) & (valid & inside)
        if not members.any():
            return
        p, t = (np.where(valid, x, 0.0) for x in (prediction, truth))
        self._add_errors(p, t, members)
        self._add_spectra(p, t, members)
        self._add_ssim(p, t, valid, members)
        self._add_gradients(p, t, valid, members)
        if "occluded" in self.regions:
            self._add_seam(p, t, valid, regions["occluded"], inside)

    def _add_errors(self, p: np.ndarray, t: np.ndarray, members: np.ndarray) -> None:
        weights = self._weigh("pixels", members)
        for band, truth in enumerate(t):
            error = p[band] - truth
            maps = (error, np.abs(error), error * error, truth, truth * truth)
            self._add(_ERRORS, band, maps, weights)

    def _add_spectra(self, p: np.ndarray, t: np.ndarray, members: np.ndarray) -> None:
        weights = _flat(members)
        self._add(("SAM",), 0, (definitions.sam_map(p, t),), weights)
        for name, index, bands in _indices(self.bands):
            changed = np.abs(index(*p[bands]) - index(*t[bands]))
            self._add((name,), 0, (changed,), weights)

    def _add_ssim(
        self, p: np.ndarray, t: np.ndarray, valid: np.ndarray, members: np.ndarray
    ) -> None:
        radius = definitions.SSIM_RADIUS
        if min(valid.shape) <= 2 * radius:
            return
        similarity, counted = definitions.ssim_map(p, t, valid)
        inner = members[:, radius:-radius, radius:-radius] & counted
        weights = self._weigh("windows", inner)
        for band, image in enumerate(similarity):
            self._add(("SSIM",), band, (image,), weights)

    def _add_gradients(
        self, p: np.ndarray, t: np.ndarray, valid: np.ndarray, members: np.ndarray
    ) -> None:
        if min(valid.shape) < 3:
            return
        inner = members[:, 1:-1, 1:-1] & definitions.has_neighbours(valid)
        weights = self._weigh("gradients", inner)
        for band in range(len(p)):
            one = slice(band, band + 1)
            both = (definitions.gradients(x[one])[:, 0] for x in (p, t))
            for of_p, of_t in zip(*both, strict=True):  # east, south
                maps = (of_p, of_t, of_p * of_p, of_t * of_t, of_p * of_t)
                self._add(_SLOPES, band, maps, weights)

    def _add_seam(
        self,
        p: np.ndarray,
        t: np.ndarray,
        valid: np.ndarray,
        hidden: np.ndarray,
        inside: np.ndarray,
    ) -> None:
        counted = np.concatenate([inside, inside], axis=1)
        for band in range(len(p)):
            error = (p[band] - t[band])[None]
            steps, *pairs = definitions.neighbour_steps(error, hidden, valid)
            for name, chosen in zip(_PAIRS, pairs, strict=True):
                here = chosen & counted
                self._sums[name][band] += steps[0, here].sum()
                self._counts[name] += np.count_nonzero(here) if band == 0 else 0

    def _weigh(self, count: str, members: np.ndarray) -> np.ndarray:
        """Count the ``(R, H, W)`` members and return them as weights."""
        self._counts[count] += members.sum(axis=(1, 2), dtype=np.int64)
        return _flat(members)

    def _add(
        self,
        names: Sequence[str],
        band: int,
        maps: Sequence[np.ndarray],
        weights: np.ndarray,
    ) -> None:
        """Add the sums of ``(H, W)`` maps of one band over each region."""
        sums = np.stack(maps).reshape(len(maps), -1) @ weights
        for name, row in zip(names, sums, strict=True):
            self._sums[name][band] += row

    def scores(self) -> Iterator[Score]:
        """Yield every metric of every region and band, bands in order, then ``all``."""
        tables = self._tables()
        for column, region in enumerate(self.regions):
            for row, band in enumerate((*self.bands, "all")):
                for metric, (values, counts) in tables.items():
                    if len(values) > 1 or band == "all":
                        value = values[min(row, len(values) - 1), column]
                        yield _score(region, band, metric, value, int(counts[column]))
        if "occluded" in self.regions:
            yield from self._seam_scores()

    def _tables(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Metric -> values ``(B + 1, R)`` or ``(1, R)``, NaN undefined; counts ``(R,)``."""
        n = self._counts["pixels"]
        rmse = np.sqrt(self._means("square", "pixels"))
        with np.errstate(divide="ignore"):
            psnr = 20 * np.log10(definitions.DATA_RANGE / rmse)
        tables = {
            "MAE": (self._means("absolute", "pixels"), n),
            "RMSE": (rmse, n),
            "bias": (self._means("signed", "pixels"), n),
            "PSNR": (psnr, n),
            "R2": (self._r2(), n),
            "SSIM": (self._means("SSIM", "windows"), self._counts["windows"]),
            "gradient_correlation": (self._correlation(), self._counts["gradients"]),
        }
        for name in ("SAM", *(index[0] for index in _indices(self.bands))):
            tables[name] = (self._means(name, "pixels")[:1], n)
        if len(self.bands) < 2:  # one number has no direction
            tables["SAM"] = (np.full_like(tables["SAM"][0], np.nan), n)
        return tables

    def _means(self, name: str, count: str) -> np.ndarray:
        """Means per band with their mean over bands below, ``(B + 1, R)``."""
        counts = self._counts[count]
        means = np.where(counts > 0, self._sums[name] / np.maximum(counts, 1), np.nan)
        return _with_all(means)

    def _r2(self) -> np.ndarray:
        power = self._means("truth_square", "pixels")[:-1]
        spread = _with_all(power - self._means("truth", "pixels")[:-1] ** 2)
        some = spread > definitions.FLAT * _with_all(power)
        square = self._means("square", "pixels")
        return np.where(some, 1 - square / np.where(some, spread, 1), np.nan)

    def _correlation(self) -> np.ndarray:
        p, t, pp, tt, pt = (
            self._means(f"slope_{name}", "gradients")[:-1] / 2  # two directions a pixel
            for name in ("p", "t", "pp", "tt", "pt")
        )
        of_p, of_t = _with_all(pp - p * p), _with_all(tt - t * t)
        some = (of_p > definitions.FLAT * _with_all(pp)) & (of_t > definitions.FLAT * _with_all(tt))
        scale = np.sqrt(np.where(some, of_p * of_t, 1))
        return np.where(some, _with_all(pt - p * t) / scale, np.nan)

    def _seam_scores(self) -> Iterator[Score]:
        across, within = (int(self._counts[name][0]) for name in _PAIRS)
        excess = np.full(len(self.bands), np.nan)
        if across and within:
            excess = (self._sums["across"] / across - self._sums["within"] / within)[:, 0]
        for band, value in zip((*self.bands, "all"), (*excess, excess.mean()), strict=True):
            yield _score("occluded", band, "seam", value, across)


class LevelErrors:
    """Errors of each region and band once their mean is taken off: two passes in one.

    Predictions and truths are whole numbers of DN, and so are their differences: counts of each
    difference hold all that the mean and the deviations from it need, exactly, at any size.

    Args:
        bands: ESA names of the bands, B of them.
        regions: names of the regions.
    """

    REACH = 2**16
    """More than the largest difference of two DN."""

    def __init__(self, bands: Sequence[str], regions: Sequence[str]) -> None:
        self.bands, self.regions = tuple(bands), tuple(regions)
        shape = (len(self.bands), 2 * self.REACH)
        self._counts = {name: np.zeros(shape, np.int64) for name in self.regions}
        self._range = {name: (self.REACH, self.REACH) for name in self.regions}

    def update(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        valid: np.ndarray,
        regions: Mapping[str, np.ndarray],
    ) -> None:
        """Add the pixels of one window, without a halo.

        Args:
            prediction: ``(B, H, W)`` reflectance, whole DN.
            truth: ``(B, H, W)`` reflectance, likewise.
            valid: ``(H, W)`` bool: the truth is known and the model gave an answer.
            regions: ``(H, W)`` bool for each region.
        """
        for name in self.regions:
            here = valid & regions[name]
            if not here.any():
                continue
            apart = definitions.difference(prediction[:, here], truth[:, here])
            steps = np.rint(apart * REFLECTANCE_SCALE).astype(np.int64) + self.REACH
            low, high = int(steps.min()), int(steps.max()) + 1
            for band, row in enumerate(steps - low):
                self._counts[name][band, low:high] += np.bincount(row, minlength=high - low)
            known = self._range[name]
            self._range[name] = min(known[0], low), max(known[1], high)

    def scores(self) -> Iterator[Score]:
        """Yield ``MAE_level_removed`` of every region and band, then over bands."""
        for name in self.regions:
            low, high = self._range[name]
            counts = self._counts[name][:, low:high]
            n_pixels = int(counts[0].sum())
            steps = np.arange(low, high, dtype=np.float64) - self.REACH
            mean = (counts * steps).sum(axis=1) / max(n_pixels, 1)
            apart = (counts * np.abs(steps - mean[:, None])).sum(axis=1)
            values = apart / max(n_pixels, 1) / REFLECTANCE_SCALE
            for band, value in zip((*self.bands, "all"), (*values, values.mean()), strict=True):
                known = float(value) if n_pixels else np.nan
                yield _score(name, band, "MAE_level_removed", known, n_pixels)


def _flat(members: np.ndarray) -> np.ndarray:
    """``(R, H, W)`` bool as float64 weights ``(H*W, R)``."""
    return members.reshape(len(members), -1).T.astype(np.float64)


def _with_all(per_band: np.ndarray) -> np.ndarray:
    """Append the mean over bands to ``(B, R)``; every band has the same pixels."""
    return np.concatenate([per_band, per_band.mean(axis=0, keepdims=True)])


def _score(region: str, band: str, metric: str, value: float, n_pixels: int) -> Score:
    known = float(value) if np.isfinite(value) else None
    return Score(region, band, metric, known, n_pixels)


def _indices(bands: Sequence[str]) -> list[tuple]:
    """Spectral indices that the bands allow: metric, function, positions of its bands."""
    near = next((name for name in ("B08", "B8A") if name in bands), None)
    found = []
    for metric, index, other in (
        ("NDVI_MAE", definitions.ndvi, "B04"),
        ("NDWI_MAE", definitions.ndwi, "B03"),
    ):
        if near and other in bands:
            found.append((metric, index, [bands.index(other), bands.index(near)]))
    return found
