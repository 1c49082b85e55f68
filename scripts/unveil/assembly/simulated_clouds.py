"""Clouds that never were: fractal clouds and shadows put on a clear image.

The generator belongs to the family of Czerkawski et al. (2023), SatelliteCloudGenerator,
Remote Sensing 15:4138: a random field with a power-law spectrum becomes an opacity, a
displaced copy becomes the shadow, and each band is blended with the colour of cloud. Here
the threshold of the field is not tuned: a pixel is occluded when either of two fields
exceeds it, so a quantile of the larger one gives the requested cover exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unveil.bands import BANDS, CLEAR, CLOUD, SHADOW
from unveil.distance import distance_from

CLOUD_OPACITY = 0.1
"""A pixel with more opacity than this is of class cloud."""
SHADOW_ATTENUATION = 0.15
"""A pixel that is no cloud and loses more direct light than this is of class shadow."""

# Reflectance of opaque cloud relative to its visible reflectance: water droplets, then ice
# crystals. Near-infrared is as bright as visible; absorption by liquid water and, more, by ice
# darkens the shortwave infrared (Hollstein et al. 2016, Remote Sensing 8:666);
# water vapour above low cloud darkens B09 and hides it from B10, where only high ice shows.
_WATER_AND_ICE: dict[str, tuple[float, float]] = {
    "B01": (1.02, 1.02),
    "B02": (1.00, 1.00),
    "B03": (0.98, 0.99),
    "B04": (1.00, 1.00),
    "B05": (1.02, 1.01),
    "B06": (1.04, 1.02),
    "B07": (1.05, 1.02),
    "B08": (1.05, 1.02),
    "B8A": (1.06, 1.02),
    "B09": (0.55, 0.80),
    "B10": (0.01, 0.30),
    "B11": (0.75, 0.45),
    "B12": (0.60, 0.33),
}
_HAZE = ((0.2, 2.0), (0.054, 30.0))
"""Opacity of haze at the edge of cloud and the pixels of 10 m on which it falls to 1 / e, twice:
rims, and the air around. Real cloudy dates are brighter than the clear date next to them by .053,
.026 and .018 (blue, WorldCereal-1 and Hungary) at 1 to 3, 4 to 8 and 9 to 18 px beyond their
grown masks; the contrast of cloud and ground is about .5."""
_HAZE_REACH_PX = 96
"""Pixels beyond which there is no haze."""
_HAZE_SPREAD = 0.4
"""Standard deviation of the logarithm of its patchiness."""
_VISIBLE = ("B02", "B03", "B04")


@dataclass(frozen=True)
class CloudOptions:
    """Shape of simulated clouds.

    Attributes:
        slope: exponent of the amplitude spectrum, amplitude ~ 1 / frequency^slope.
        edge: width of the semi-transparent rim, in standard deviations of the field.
        max_opacity: opacity of the thickest part, more than 0.1 and at most 1.
        shadow_strength: fraction of direct light that opaque cloud takes from the ground.
        shadow_distance: range of the displacement of the shadow, in pixels.
        shadow_direction: range of its direction, in degrees clockwise from north; north-west
            is the morning overpass on the northern hemisphere.
    """

    slope: float = 1.9
    edge: float = 0.5
    max_opacity: float = 1.0
    shadow_strength: float = 0.5
    shadow_distance: tuple[float, float] = (6.0, 30.0)
    shadow_direction: tuple[float, float] = (280.0, 350.0)

    def __post_init__(self) -> None:
        """Refuse values that give no cloud.

        Raises:
            ValueError: naming the value and its range.
        """
        if not CLOUD_OPACITY < self.max_opacity <= 1:
            raise ValueError(f"max_opacity is {self.max_opacity}; use 0.1 < max_opacity <= 1")
        if not 0 <= self.shadow_strength <= 1:
            raise ValueError(f"shadow_strength is {self.shadow_strength}; use 0 ... 1")
        if self.edge <= 0:
            raise ValueError(f"edge is {self.edge}; use a positive width")


@dataclass(frozen=True)
class SimulatedClouds:
    """Clouds over one grid.

    Attributes:
        alpha: ``(H, W)`` float32, opacity 0...1.
        shadow: ``(H, W)`` float32, fraction of direct light taken from the ground, 0...1.
        classes: ``(H, W)`` uint8 codes of :mod:`unveil.bands`: cloud where alpha > 0.1,
            else shadow where the shadow > 0.15, else clear. Thinner rims count as clear.
    """

    alpha: np.ndarray
    shadow: np.ndarray
    classes: np.ndarray


def simulate_clouds(
    shape: tuple[int, int],
    *,
    cover: float,
    rng: np.random.Generator,
    options: CloudOptions | None = None,
) -> SimulatedClouds:
    """Generate clouds and their shadows.

    Args:
        shape: rows and columns.
        cover: fraction of pixels of class cloud or shadow, 0...1; met to a pixel or two.
        rng: the source of all randomness.
        options: the shape of the clouds.

    Returns:
        Opacity, shadow and classes. No pixel is touched when ``cover`` is 0.

    Raises:
        ValueError: if ``cover`` is outside 0...1.
    """
    if not 0 <= cover <= 1:
        raise ValueError(f"cover is {cover}; it is a fraction, use 0 ... 1")
    options = options or CloudOptions()
    here, upwind = _displaced_fields(shape, rng, options)
    if cover == 0:
        nothing = np.zeros(shape, np.float32)
        return SimulatedClouds(nothing, nothing, np.full(shape, CLEAR, np.uint8))
    threshold = _threshold(here, upwind, cover, options)
    alpha = _opacity(here, threshold, options)
    shadow = np.float32(options.shadow_strength) * _opacity(upwind, threshold, options)
    classes = np.full(shape, CLEAR, np.uint8)
    classes[shadow > SHADOW_ATTENUATION] = SHADOW
    classes[alpha > CLOUD_OPACITY] = CLOUD
    return SimulatedClouds(alpha, shadow, classes)


def with_haze(clouds: SimulatedClouds, *, rng: np.random.Generator) -> SimulatedClouds:
    """Put haze around generated clouds, on pixels that their classes call clear.

    It falls off with the distance from cloud and shadow as on real dates, is patchy like the
    clouds, has their colour, and stays thinner than what counts as cloud: classes are the same.

    Args:
        clouds: from :func:`simulate_clouds`.
        rng: the source of all randomness.
    """
    hidden = clouds.classes != CLEAR
    if not hidden.any():
        return clouds
    distance = distance_from(hidden, reach=_HAZE_REACH_PX)
    haze = sum(
        edge * (np.exp(-distance / fall) - np.exp(-_HAZE_REACH_PX / fall)) for edge, fall in _HAZE
    )
    patches = fractal_field(hidden.shape, slope=1.9, rng=rng)
    haze *= np.exp(_HAZE_SPREAD * patches - _HAZE_SPREAD**2 / 2)
    haze = np.minimum(haze, CLOUD_OPACITY).astype(np.float32)
    return replace(clouds, alpha=np.where(hidden, clouds.alpha, np.maximum(clouds.alpha, haze)))


def apply_clouds(
    reflectance: np.ndarray,
    clouds: SimulatedClouds,
    *,
    bands: Sequence[str],
    rng: np.random.Generator,
) -> np.ndarray:
    """Put clouds on a clear image.

    .. math:: y_b = (1 - a) (1 - s d_b) x_b + a c_b

    with opacity a, shadow s, the direct part of sunlight d (skylight reaches shadows, more of
    it in the blue) and the colour of cloud c. The phase of the cloud (water to ice) and its
    brightness are drawn; it is never darker than the bright part of the scene.

    Args:
        reflectance: ``(B, H, W)`` reflectance, NaN where nodata (stays NaN).
        clouds: from :func:`simulate_clouds`, same rows and columns.
        bands: ESA names of the B bands, of level L1C or L2A.
        rng: the source of all randomness.

    Returns:
        ``(B, H, W)`` float32; where opacity and shadow are 0, exactly ``reflectance``.
    """
    visible = reflectance[visible_bands(bands)]
    visible = visible[np.isfinite(visible)]
    ambient = float(np.percentile(visible, 90)) if visible.size else 0.0
    veil = CloudVeil(clouds, bands=bands, ambient=ambient, rng=rng)
    return veil.over(reflectance, (slice(None), slice(None)))


class CloudVeil:
    """Clouds with colour and texture, to be put on an image window by window.

    Args:
        clouds: from :func:`simulate_clouds`.
        bands: ESA names of the B bands.
        ambient: reflectance of the bright part of the whole scene: the 90th percentile of its
            :func:`visible_bands`, 0 when nothing is valid.
        rng: the source of all randomness.
    """

    def __init__(
        self,
        clouds: SimulatedClouds,
        *,
        bands: Sequence[str],
        ambient: float,
        rng: np.random.Generator,
    ) -> None:
        self.clouds = clouds
        self._colour = _cloud_colour(ambient, bands, rng)[:, None, None]
        self._texture = fractal_field(clouds.alpha.shape, slope=1.6, rng=rng)
        self._direct = np.array([_direct_light(b) for b in bands], np.float32)[:, None, None]

    def over(self, reflectance: np.ndarray, place: tuple[slice, slice]) -> np.ndarray:
        """Return a window ``(B, H, W)`` of the image under the clouds, as :func:`apply_clouds`.

        Args:
            reflectance: the window of the clear image.
            place: rows and columns of the window.
        """
        alpha, shadow = self.clouds.alpha[place], self.clouds.shadow[place]
        ground = reflectance.astype(np.float32) * (1 - shadow * self._direct)
        cloud = self._colour * np.clip(1 + 0.06 * self._texture[place], 0.7, 1.3)
        return (1 - alpha) * ground + alpha * cloud


def fractal_field(shape: tuple[int, int], *, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random ``(H, W)`` float32 field of zero mean and unit standard deviation.

    White noise is shaped to amplitude ~ 1 / frequency^slope in the Fourier domain.
    """
    import scipy.fft  # lazy: a dry run makes no clouds

    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, np.float32))
    rows = np.fft.fftfreq(shape[0])[:, None]
    cols = np.fft.rfftfreq(shape[1])[None, :]
    frequency = np.hypot(rows, cols)
    frequency[0, 0] = np.inf
    field = scipy.fft.irfft2(spectrum * (frequency**-slope).astype(np.float32), s=shape)
    field -= field.mean()
    return field / max(float(field.std()), 1e-12)


def _displaced_fields(
    shape: tuple[int, int], rng: np.random.Generator, options: CloudOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the field above each pixel and the field between the pixel and the sun."""
    distance = rng.uniform(*options.shadow_distance)
    direction = np.deg2rad(rng.uniform(*options.shadow_direction))
    down = round(-distance * np.cos(direction))
    right = round(distance * np.sin(direction))
    pad_rows, pad_cols = abs(down), abs(right)
    height, width = shape
    whole = fractal_field((height + pad_rows, width + pad_cols), slope=options.slope, rng=rng)
    top, left = max(down, 0), max(right, 0)
    here = whole[top : top + height, left : left + width]
    upwind = whole[top - down : top - down + height, left - right : left - right + width]
    return here, upwind


def _threshold(here: np.ndarray, upwind: np.ndarray, cover: float, options: CloudOptions) -> float:
    """Return the field value below which there is no cloud, for the wanted cover."""
    level = here - options.edge * _inverse_smoothstep(CLOUD_OPACITY / options.max_opacity)
    darkest = options.shadow_strength * options.max_opacity
    if darkest > SHADOW_ATTENUATION:
        rim = options.edge * _inverse_smoothstep(SHADOW_ATTENUATION / darkest)
        level = np.maximum(level, upwind - rim)
    ranked = np.sort(level, axis=None)
    clear = round((1 - cover) * ranked.size)
    if clear == 0:
        return float(ranked[0]) - 1e-3
    if clear == ranked.size:
        return float(ranked[-1])
    return float(ranked[clear - 1] + ranked[clear]) / 2


def _opacity(field: np.ndarray, threshold: float, options: CloudOptions) -> np.ndarray:
    rise = np.clip((field - threshold) / options.edge, 0, 1).astype(np.float32)
    return np.float32(options.max_opacity) * rise * rise * (3 - 2 * rise)


def _inverse_smoothstep(value: float) -> float:
    """Return u in 0...1 with u^2 (3 - 2u) = value."""
    return float(0.5 - np.sin(np.arcsin(1 - 2 * value) / 3))


def visible_bands(bands: Sequence[str]) -> list[int]:
    """Return the positions of the visible bands; of all bands where there is none."""
    visible = [i for i, name in enumerate(bands) if name in _VISIBLE]
    return visible or list(range(len(bands)))


def _cloud_colour(ambient: float, bands: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return the reflectance of opaque cloud, ``(B,)`` float32."""
    brightness = max(rng.uniform(0.4, 0.85), 1.1 * ambient)
    ice = rng.uniform(0, 1) ** 2  # most cloud is low
    mixed = [(1 - ice) * _WATER_AND_ICE[b][0] + ice * _WATER_AND_ICE[b][1] for b in bands]
    return np.float32(brightness) * np.array(mixed, np.float32)


def _direct_light(band: str) -> float:
    """Return the part of sunlight that comes straight from the sun; the rest is skylight."""
    return 1 - 0.25 * (492.2 / BANDS[band].wavelength_nm) ** 1.5
