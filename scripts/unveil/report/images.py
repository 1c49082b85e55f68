"""Thumbnails: one fixed stretch a row, radar in dB, error maps, and the comparison picture."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from rasterio.enums import Resampling
from scipy.ndimage import binary_erosion

from unveil import raster
from unveil.bands import CLEAR, CLOUD, SAR2, SHADOW
from unveil.excess import excess_of_dn
from unveil.predictions import std_path
from unveil.report.findings import ReportOptions
from unveil.scene import Frame, Scene, is_occluded

VIEWS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "true": ("True colour", ("B04", "B03", "B02")),
    "nir": ("False colour, near infrared", ("B08", "B04", "B03")),
    "swir": ("False colour, short-wave infrared", ("B11", "B8A", "B04")),
}
ERROR_VIEW = "error"
SPREAD_VIEW = "std"
ERROR_MAX = 0.1
ERROR_MAP = "inferno"
UNKNOWN_GREY = 128
OUTLINE, SHADOW_OUTLINE = (255, 64, 160), (64, 208, 255)
VEIL_MAX, VEIL_MAP = 0.1, "RdBu_r"
"""Excess in reflectance at the ends of its colours."""
FILM_PX = 88
"""Longest side of the frames in a scene's film."""

MIN_SPAN = 0.01
"""Narrowest stretch in reflectance, so that noise of a flat scene is not blown up."""

SAR_RANGES = {"VV": (-20.0, 0.0), "VH": (-28.0, -5.0), "VV−VH": (2.0, 14.0)}
SAR_NOTE = "red VV −20…0 dB, green VH −28…−5 dB, blue VV−VH 2…14 dB, the same in every row"

BYTE_BUDGET = 7_500_000
"""For the images of the picture; with 100 scenes their films take another 2 MB, the rest 4."""

BYTES_PER_PIXEL = 0.45
"""WebP at quality 80 as base64, measured on noisy 10 m imagery: an upper figure."""

WEBP_QUALITY, FILM_QUALITY = 80, 60
SMALL_PX, SMALL_QUALITY = 64, 60
"""Images no larger than this are so many that they are compressed more."""

CLOUDY, SAR, TRUTH = "Cloudy", "SAR", "Cloud-free"


@dataclass(frozen=True)
class Preview:
    """Bands of one raster at thumbnail size.

    Attributes:
        bands: names, B of them.
        data: ``(B, h, w)`` float32 reflectance (or dB), NaN where nodata.
    """

    bands: tuple[str, ...]
    data: np.ndarray

    def pick(self, names: Sequence[str]) -> np.ndarray | None:
        """Return ``(len(names), h, w)``, or None when a band is missing."""
        if not set(names) <= set(self.bands):
            return None
        return self.data[[self.bands.index(name) for name in names]]


@dataclass(frozen=True)
class Shot:
    """One optical frame as models see it.

    Attributes:
        frame: the frame.
        image: ``(h, w, 3)`` uint8, with the borders of what its mask calls cloud and shadow.
        veil: ``(h, w, 3)`` uint8, its excess over the ground in colour; None without an estimate.
    """

    frame: Frame
    image: np.ndarray
    veil: np.ndarray | None


@dataclass(frozen=True)
class Row:
    """The images of one scene.

    Attributes:
        scene: id.
        images: view -> column -> ``(h, w, 3)`` uint8; a column without image is absent.
        stretches: view -> the stated stretch of the row.
        stretch_from: the image that the stretch was taken from.
        outline: ``(h, w)`` bool, border of the occluded pixels.
        film: every optical frame as models see it.
    """

    scene: str
    images: dict[str, dict[str, np.ndarray]]
    stretches: dict[str, str]
    stretch_from: str
    outline: np.ndarray
    film: tuple[Shot, ...] = ()


def thumbnail_size(n_rows: int, n_columns: int, wanted: int) -> int:
    """Return the longest side of a thumbnail so that all views fit the page's byte budget."""
    cells = max(1, n_rows * n_columns * (len(VIEWS) + 1))
    affordable = int(math.sqrt(BYTE_BUDGET / (cells * BYTES_PER_PIXEL)))
    return max(48, min(wanted, affordable))


def read_preview(path: Path, bands: Sequence[str], size: int) -> Preview:
    """Read bands of a reflectance raster decimated to ``size`` pixels on the longest side.

    Bands that the file does not have are left out. Averages ignore nodata.
    """
    with raster.open_raster(path) as dataset:
        names = list(dataset.descriptions)
        chosen = [name for name in bands if name in names]
        shape = _fit(dataset.shape, size)
        positions = [names.index(name) + 1 for name in chosen]
        out = np.zeros((len(chosen), *shape), dataset.dtypes[0])
        if positions:  # rasterio reads no empty list
            dataset.read(positions, out=out, resampling=Resampling.average)
    return Preview(tuple(chosen), raster.to_reflectance(out))


def read_radar(frame: Frame, size: int) -> np.ndarray:
    """Return the radar as false colour, ``(h, w, 3)`` uint8; dB averaged as delivered."""
    with raster.open_raster(frame.path) as dataset:
        shape = _fit(dataset.shape, size)
        positions = [frame.bands.index(name) + 1 for name in SAR2]
        vv, vh = dataset.read(positions, out_shape=(2, *shape), resampling=Resampling.average)
    channels = zip((vv, vh, vv - vh), SAR_RANGES.values(), strict=True)
    return np.stack([_scale(band, *limits) for band, limits in channels], axis=-1)


def stretch_of(
    bands: np.ndarray, percentiles: tuple[float, float], *, common_span: bool
) -> list[tuple[float, float]]:
    """Return the lower and upper reflectance of each band of ``(B, h, w)``, NaN ignored.

    Args:
        bands: reflectance.
        percentiles: lower and upper, 0...100.
        common_span: every band spans what the widest one does, from its own dark end: no
            veil of scattered blue light, yet the colours keep their proportions.
    """
    lows, spans = [], []
    for band in bands:
        valid = band[np.isfinite(band)]
        low, high = np.percentile(valid, percentiles) if valid.size else (0.0, 0.3)
        lows.append(float(low))
        spans.append(max(float(high - low), MIN_SPAN))
    if common_span:
        spans = [max(spans)] * len(spans)
    return [(low, low + span) for low, span in zip(lows, spans, strict=True)]


def render(bands: np.ndarray, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return ``(h, w, 3)`` uint8 of three bands; grey where any of them is unknown."""
    image = np.stack([_scale(b, *limit) for b, limit in zip(bands, limits, strict=True)], axis=-1)
    image[~np.isfinite(bands).all(axis=0)] = UNKNOWN_GREY
    return image


def render_error(prediction: Preview, truth: Preview) -> np.ndarray | None:
    """Return the mean absolute error over shared bands in colour, ``(h, w, 3)`` uint8."""
    shared = [name for name in truth.bands if name in prediction.bands]
    answer, wanted = prediction.pick(shared), truth.pick(shared)
    if not shared or answer is None or wanted is None:
        return None
    return _colour(np.abs(answer - wanted).mean(axis=0))


def render_spread(path: Path, bands: Sequence[str], size: int) -> np.ndarray | None:
    """Return a model's standard deviation, mean over bands, in the colours of the error.

    Args:
        path: the raster of standard deviations.
        bands: those to average, as far as they are there.
        size: longest side in pixels.
    """
    spread = read_preview(path, bands, size)
    return _colour(spread.data.mean(axis=0)) if spread.bands else None


def _colour(
    values: np.ndarray,
    *,
    least: float = 0.0,
    most: float = ERROR_MAX,
    colours: str = ERROR_MAP,
) -> np.ndarray:
    """Return ``(h, w)`` reflectance in colour, as an error if not told; grey where unknown."""
    share = np.clip((values - least) / (most - least), 0, 1)
    image = matplotlib.colormaps[colours](share, bytes=True)[..., :3].copy()
    image[~np.isfinite(values)] = UNKNOWN_GREY
    return image


def make_row(
    scene: Scene,
    predictions: Mapping[str, Path],
    options: ReportOptions,
    size: int,
) -> Row:
    """Render every image of a scene.

    Args:
        scene: the scene.
        predictions: model id -> GeoTIFF of the results there are.
        options: percentiles of the stretch.
        size: longest side in pixels.
    """
    wanted = bands_shown(scene)
    truth = scene.with_role("reference")
    paths = {CLOUDY: scene.target.path, **predictions}
    if truth:
        paths[TRUTH] = truth[0].path
    previews = {column: read_preview(path, wanted, size) for column, path in paths.items()}
    hidden = read_hidden(scene, size)
    basis, model_image = _stretch_basis(previews, hidden)
    images: dict[str, dict[str, np.ndarray]] = {}
    stretches: dict[str, str] = {}
    film: tuple[Shot, ...] = ()
    for view, (_, bands) in VIEWS.items():
        chosen = model_image.pick(bands)
        if chosen is None:
            continue
        limits = stretch_of(chosen, options.stretch_percentiles, common_span=view == "true")
        stretches[view] = _describe(bands, limits)
        film = film or make_film(scene, bands, limits)
        images[view] = {
            column: render(chosen, limits)
            for column, preview in previews.items()
            if (chosen := preview.pick(bands)) is not None
        }
    if not images:
        images["true"], stretches["true"] = _render_grey(previews, model_image, options)
    if truth:
        errors = {c: render_error(p, previews[TRUTH]) for c, p in previews.items() if c != TRUTH}
        images[ERROR_VIEW] = {c: image for c, image in errors.items() if image is not None}
    stds = {c: std_path(p.parent, scene.id) for c, p in predictions.items()}
    spreads = {c: render_spread(p, wanted, size) for c, p in stds.items() if p.exists()}
    if any(image is not None for image in spreads.values()):
        images[SPREAD_VIEW] = {c: image for c, image in spreads.items() if image is not None}
    if scene.radar:
        radar = read_radar(scene.radar, size)
        for view in images:
            images[view][SAR] = radar
    return Row(scene.id, images, stretches, basis, border_of(hidden), film)


def bands_shown(scene: Scene) -> tuple[str, ...]:
    """Return the bands that the views need; the first band of a scene that has none of them."""
    of_views = tuple(dict.fromkeys(band for _, bands in VIEWS.values() for band in bands))
    return of_views if set(of_views) & set(scene.target.bands) else scene.target.bands[:1]


def make_film(
    scene: Scene, bands: Sequence[str], limits: Sequence[tuple[float, float]]
) -> tuple[Shot, ...]:
    """Render the target and its context in one stretch, with what their masks call hidden."""
    film = []
    for frame in sorted((scene.target, *scene.context), key=lambda f: f.date):
        preview = read_preview(frame.path, bands, FILM_PX).pick(bands)
        if preview is not None:
            image = render(preview, limits)
            classes = _read_classes(frame.mask, image.shape[:2])
            image[border_of(classes == SHADOW)] = SHADOW_OUTLINE
            image[border_of(classes == CLOUD)] = OUTLINE
            film.append(Shot(frame, image, render_veil(frame, image.shape[:2])))
    return tuple(film)


def render_veil(frame: Frame, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the excess of a frame in colour, grey where unknown; None without an estimate."""
    if frame.veil is None:
        return None
    with raster.open_raster(frame.veil) as dataset:
        excess = excess_of_dn(dataset.read(1, out_shape=shape, resampling=Resampling.nearest))
    return _colour(excess, least=-VEIL_MAX, most=VEIL_MAX, colours=VEIL_MAP)


def border_of(hidden: np.ndarray) -> np.ndarray:
    """Return the border pixels of a ``(h, w)`` bool mask, the image's own border left out."""
    return hidden & ~binary_erosion(hidden, border_value=1)


def read_hidden(scene: Scene, size: int) -> np.ndarray:
    """Return the occluded pixels at thumbnail size, ``(h, w)`` bool."""
    frames = scene.with_role("occlusion")
    path = frames[0].path if frames else scene.target.mask
    return is_occluded(_read_classes(path, _fit(scene.grid.shape, size)))


def _read_classes(path: Path | None, shape: tuple[int, int]) -> np.ndarray:
    """Return a class raster, decimated; all is clear without one."""
    if path is None:
        return np.full(shape, CLEAR, np.uint8)
    with raster.open_raster(path) as dataset:
        return dataset.read(1, out_shape=shape, resampling=Resampling.nearest)


def to_data_uri(image: np.ndarray, quality: int = WEBP_QUALITY) -> str:
    """Return an image as a WebP data URI."""
    if max(image.shape[:2]) <= SMALL_PX:
        quality = min(quality, SMALL_QUALITY)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=quality, method=4, use_sharp_yuv=True)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def outline_uri(border: np.ndarray) -> str:
    """Return the outline as a transparent PNG data URI."""
    image = np.zeros((*border.shape, 4), np.uint8)
    image[border] = (*OUTLINE, 255)
    stream = io.BytesIO()
    Image.fromarray(image).quantize(2).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _stretch_basis(previews: Mapping[str, Preview], hidden: np.ndarray) -> tuple[str, Preview]:
    """Return the image that sets the stretch, and what it is called on the page.

    Without a truth that is the clear part of the cloudy image: clouds would darken the row.
    """
    if TRUTH in previews:
        return TRUTH, previews[TRUTH]
    cloudy = previews[CLOUDY]
    if hidden.all() or not hidden.any():
        return CLOUDY, cloudy
    return f"clear part of {CLOUDY}", Preview(cloudy.bands, np.where(hidden, np.nan, cloudy.data))


def _render_grey(
    previews: Mapping[str, Preview], basis: Preview, options: ReportOptions
) -> tuple[dict[str, np.ndarray], str]:
    """Show the first band in grey where a scene lacks the bands of every view."""
    if not basis.bands:
        return {}, "none: no band of the views is there"
    bands = (basis.bands[0],) * 3
    limits = stretch_of(basis.data[[0, 0, 0]], options.stretch_percentiles, common_span=True)
    images = {
        column: render(chosen, limits)
        for column, preview in previews.items()
        if (chosen := preview.pick(bands)) is not None
    }
    return images, f"{bands[0]} {_describe(bands, limits)}"


def _describe(bands: Sequence[str], limits: Sequence[tuple[float, float]]) -> str:
    if len(set(limits)) == 1:
        return f"{limits[0][0]:.3f}–{limits[0][1]:.3f}"
    return "\n".join(
        f"{band} {low:.3f}–{high:.3f}" for band, (low, high) in zip(bands, limits, strict=True)
    )


def _scale(band: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.nan_to_num((band - low) / (high - low))
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)


def _fit(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Return rows and columns shrunk to ``size`` on the longest side, never enlarged."""
    factor = min(1.0, size / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
