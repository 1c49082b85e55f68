"""MNSPI: hidden pixels from clear ones near them that looked alike on a clear date.

Modified neighbourhood similar pixel interpolator, Zhu et al. 2012 (see :class:`Mnspi`). Two
predictions are averaged: from space, the weighted mean of the similar pixels; from time, the
pixel's own look plus their weighted mean change. Where the paper takes one clear image, each
pixel takes its nearest clear look in time, and similar pixels are those clear on that date and
in the target.

Three things bound cost and memory. The neighbourhood is looked at in :func:`neighbourhood`'s
places, dense near the pixel and sparse far from it, and the most similar of them are used,
where the paper takes the nearest under a threshold. It ends at ``reach_px``; beyond, the look
gets the mean change of the scene, as the authors' program does without a similar pixel. The
centre of a cloud is that of the hidden pixels within ``reach_px``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from unveil.errors import InputError
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.classical import keep_clear
from unveil.scene import Inputs, Scene

PIXELS_AT_ONCE = 1024
"""Bounds memory, and keeps their neighbours in the processor's cache."""
DIRECTIONS = 16
GROWTH = 2**0.5
"""Of the radius from one ring of the neighbourhood to the next."""
LEAST_RANGE = 1e-6


@dataclass(frozen=True)
class MnspiOptions:
    """Options of the model; the number of similar pixels is the paper's, the reach is not tuned.

    Attributes:
        similar: similar pixels to use, at most.
        reach_px: how far they may be, in pixels.
    """

    similar: int = 20
    reach_px: int = 128


class Mnspi(Model):
    """Similar clear pixels in space, and their change in time (Zhu et al. 2012).

    Costs 20 to 30 CPU seconds for a million hidden pixels of six bands, however many frames.
    """

    kind = "mnspi"
    citation = (
        "Zhu, Gao, Liu & Chen 2012, A modified neighborhood similar pixel interpolator approach "
        "for removing thick clouds in Landsat images, IEEE Geosci. Remote Sens. Lett. "
        "9:521-525, doi:10.1109/LGRS.2011.2173290."
    )
    options_type = MnspiOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        for name in ("similar", "reach_px"):
            value = getattr(self.options, name)
            if value < 1:
                raise InputError(
                    f"found {value}",
                    file="models table",
                    field=f"{spec.id}.options.{name}",
                    remedy="give a whole number above 0",
                )
        self.receptive_field = self.options.reach_px

    @property
    def needs(self) -> Needs:
        """At least one context frame."""
        return Needs(min_context=1)

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Find the mean change from every frame to the target, where both are clear."""
        *change, count = reduce(np.add, map(_change_sums, tiles)).T
        self._change = (np.array(change) / np.maximum(count, 1)).T

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the target where it is clear and the estimate elsewhere, NaN without a look."""
        result = np.full(inputs.target.shape, np.nan, np.float32)
        missing = ~inputs.target_clear & np.isfinite(inputs.target).all(axis=0)
        centre = distance_to_centre(~inputs.target_clear, half=self.options.reach_px)
        target = spectra_of(inputs.target)
        for t in np.lexsort((inputs.days > 0, np.abs(inputs.days))):
            clear = inputs.context_clear[t]
            rows, cols = np.nonzero(missing & clear)
            if not len(rows):
                continue
            pair = Pair(target, spectra_of(inputs.context[t]), clear & inputs.target_clear)
            for start in range(0, len(rows), PIXELS_AT_ONCE):
                row, col = (axis[start : start + PIXELS_AT_ONCE] for axis in (rows, cols))
                estimate = self._estimate(pair, row, col, centre[row, col], self._change[t])
                result[:, row, col] = np.clip(estimate.T, 0, None)
            missing &= ~clear
        return Prediction(keep_clear(inputs, result))

    def _estimate(
        self,
        pair: Pair,
        row: np.ndarray,
        col: np.ndarray,
        centre: np.ndarray,
        change: np.ndarray,
    ) -> np.ndarray:
        """Return the estimate of P pixels, ``(P, B)``; without similar ones look and change."""
        offsets = neighbourhood(self.options.reach_px)
        similar = find_similar(pair, row, col, offsets=offsets, most=self.options.similar)
        own = pair.look[row * pair.both.shape[1] + col]
        estimate = combine(pair, own, similar, centre)
        return np.where(similar.found.any(axis=1, keepdims=True), estimate, own + change)


def _change_sums(tile: Inputs) -> np.ndarray:
    """Return target minus frame summed where both are clear, and the pixels, ``(T, B + 1)``."""
    rows = []
    for frame, clear in zip(tile.context, tile.context_clear, strict=True):
        both = clear & tile.target_clear
        gap = (tile.target - frame)[:, both].sum(axis=1, dtype=np.float64)
        rows.append(np.append(gap, np.count_nonzero(both)))
    return np.stack(rows)


@dataclass(frozen=True)
class Pair:
    """The target and one date of a window.

    Attributes:
        target: ``(H W, B)`` reflectance of the target, one spectrum after another.
        look: ``(H W, B)`` reflectance of the date.
        both: ``(H, W)`` bool, clear in the two.
    """

    target: np.ndarray
    look: np.ndarray
    both: np.ndarray


@dataclass(frozen=True)
class Similar:
    """The similar pixels of P pixels, at most N each.

    Attributes:
        index: ``(P, N)`` which spectrum of the pair.
        found: ``(P, N)`` bool, whether there is one.
        unlike: ``(P, N)`` root mean square difference of the spectra on the clear date.
        distance: ``(P, N)`` in pixels.
    """

    index: np.ndarray
    found: np.ndarray
    unlike: np.ndarray
    distance: np.ndarray


def spectra_of(image: np.ndarray) -> np.ndarray:
    """Return ``(B, H, W)`` as ``(H W, B)``, each spectrum in one place of the memory."""
    return np.ascontiguousarray(np.moveaxis(image, 0, -1)).reshape(-1, len(image))


@cache
def neighbourhood(reach: int) -> np.ndarray:
    """Return the rows and columns to look at from a pixel, ``(K, 2)``, on rings around it."""
    rings = int(np.floor(np.log(reach) / np.log(GROWTH) + 1e-9))
    radius = GROWTH ** np.arange(rings + 1)[:, None]
    # Every other ring is turned by half a step, so that places do not lie in rows.
    turn = 0.5 * (np.arange(rings + 1)[:, None] % 2)
    angle = 2 * np.pi * (np.arange(DIRECTIONS) + turn) / DIRECTIONS
    rows, cols = (np.rint(radius * part(angle)).ravel() for part in (np.sin, np.cos))
    places = np.unique(np.stack([rows, cols], axis=1).astype(int), axis=0)
    return places[places.any(axis=1)]


def find_similar(
    pair: Pair, row: np.ndarray, col: np.ndarray, *, offsets: np.ndarray, most: int
) -> Similar:
    """Find the pixels around that are clear in both images and most like on the clear date.

    Args:
        pair: the images.
        row: ``(P,)`` of the pixels asked for.
        col: likewise.
        offsets: ``(K, 2)`` of :func:`neighbourhood`.
        most: how many to find.
    """
    height, width = pair.both.shape
    rows, cols = row[:, None] + offsets[:, 0], col[:, None] + offsets[:, 1]
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    index = np.where(inside, rows * width + cols, 0)
    usable = inside & pair.both.ravel()[index]
    own = pair.look[row * width + col]
    gap = pair.look[index] - own[:, None]
    square = np.einsum("pkb,pkb->pk", gap, gap) / np.float32(own.shape[1])
    square[~usable] = np.inf
    nearest = np.argpartition(square, min(most, len(offsets) - 1), axis=1)[:, :most]
    unlike = np.sqrt(np.take_along_axis(square, nearest, axis=1))
    distance = np.hypot(*offsets.T)[nearest]
    return Similar(
        np.take_along_axis(index, nearest, axis=1), np.isfinite(unlike), unlike, distance
    )


def combine(pair: Pair, own: np.ndarray, similar: Similar, centre: np.ndarray) -> np.ndarray:
    """Return the average of the predictions from space and from time, ``(P, B)``.

    Near the edge of a cloud, where similar pixels are nearer than its centre, space counts
    more; deep inside, time.

    Args:
        pair: the images.
        own: ``(P, B)`` looks of the pixels.
        similar: their similar pixels.
        centre: ``(P,)`` distance to the centre of the cloud, in pixels.
    """
    weight = similar_weights(similar)
    now, then = pair.target[similar.index], pair.look[similar.index]
    hidden = ~similar.found
    now[hidden] = then[hidden] = 0
    space = (weight[..., None] * now).sum(axis=1)
    time = own + space - (weight[..., None] * then).sum(axis=1)
    away = np.where(similar.found, similar.distance, 0).sum(axis=1)
    away /= np.maximum(similar.found.sum(axis=1), 1)
    share = (centre / np.maximum(centre + away, LEAST_RANGE))[:, None]
    return share * space + (1 - share) * time


def similar_weights(similar: Similar) -> np.ndarray:
    """Return the weights of similar pixels, ``(P, N)``, of sum 1 where there is any."""
    unlike, distance = (
        _scaled(values, similar.found) for values in (similar.unlike, similar.distance)
    )
    weight = similar.found / (unlike * distance)
    return weight / np.maximum(weight.sum(axis=1, keepdims=True), LEAST_RANGE)


def _scaled(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return values scaled to 1...2 over what was found of each pixel; 1 elsewhere."""
    low = np.where(found, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(found, values, -np.inf).max(axis=1, keepdims=True)
    span = np.where(found, np.where(found, values, 0) - np.where(np.isfinite(low), low, 0), 0)
    return 1 + span / (np.where(found.any(axis=1, keepdims=True), high - low, 0) + LEAST_RANGE)


def distance_to_centre(hidden: np.ndarray, *, half: int) -> np.ndarray:
    """Return how far each pixel is from the mean place of the hidden pixels around it.

    Args:
        hidden: ``(H, W)`` bool.
        half: pixels to each side that are around, rows and columns alike.

    Returns:
        ``(H, W)`` float64 in pixels, 0 where nothing is hidden.
    """
    row, col = (np.arange(size) for size in hidden.shape)
    count = box_sums(hidden, half)

    def apart(place: np.ndarray) -> np.ndarray:
        mean = box_sums(hidden * place, half) / np.maximum(count, 1)
        return np.where(count > 0, mean - place, 0)

    return np.hypot(apart(row[:, None]), apart(col[None]))


def box_sums(values: np.ndarray, half: int) -> np.ndarray:
    """Return the sum of whole numbers within ``half`` rows and columns, ``(H, W)``, exact."""
    for axis in (0, 1):
        size = values.shape[axis]
        before = [(1, 0) if axis == a else (0, 0) for a in (0, 1)]
        running = np.pad(values.cumsum(axis=axis, dtype=np.int64), before)
        place = np.arange(size)
        high, low = np.minimum(place + half + 1, size), np.maximum(place - half, 0)
        values = running.take(high, axis=axis) - running.take(low, axis=axis)
    return values
