"""Weights drawn by seed, for networks whose published files cannot be had."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def draw_weights(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int, spread: float
) -> dict[str, np.ndarray]:
    """Return weights in PyTorch's layout that keep signals of order one.

    Args:
        shapes: of the arrays, by name.
        seed: of their values.
        spread: standard deviation of biases.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(("running_var", "weight")):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, spread, shape)
        state[name] = values.astype(np.float32)
    return state
