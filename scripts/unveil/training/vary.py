"""How samples of all networks are varied: turned, and under clouds of any shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unveil.assembly.simulated_clouds import CloudOptions


def draw_turn(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return one of the eight symmetries of the square, for the last two axes of any array."""
    quarter, flip = int(rng.integers(4)), rng.random() < 0.5

    def turn(array: np.ndarray) -> np.ndarray:
        turned = np.rot90(array, quarter, (-2, -1))
        return np.ascontiguousarray(turned[..., ::-1] if flip else turned)

    return turn


def draw_cloud_options(rng: np.random.Generator) -> CloudOptions:
    """Draw the shape of clouds: ragged to smooth, sharp to hazy, the sun anywhere."""
    return CloudOptions(
        slope=rng.uniform(1.4, 2.2),
        edge=float(np.exp(rng.uniform(np.log(0.2), np.log(2.5)))),
        max_opacity=min(1.0, rng.uniform(0.6, 1.4)),
        shadow_strength=rng.uniform(0.3, 0.7),
        shadow_distance=(4.0, 30.0),
        shadow_direction=(0.0, 360.0),
    )
