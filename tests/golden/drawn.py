"""Weights that PyTorch drew by a seed, drawn again: what it takes to run a network of several MB.

PyTorch's generator is the Mersenne twister, seeded as NumPy's legacy one is. For tensors of 16
values and more, ``normal_`` fills them with 24-bit uniform numbers and turns each eight and the
eight after them into normal ones (Box & Muller 1958). It does so in float32, so that after rounding
to float16 a few values differ from ours in the last bit; a cut lists those.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def uniform(seed: int, count: int) -> np.ndarray:
    """Return the first numbers in 0...1 that ``torch.manual_seed(seed)`` leads to, float64."""
    bits = np.frombuffer(np.random.RandomState(seed).bytes(4 * count), "<u4")
    return (bits & 0xFFFFFF) / 2**24


def normal(uniforms: np.ndarray) -> np.ndarray:
    """Return the normal numbers of variance 1 made of as many uniform ones, a multiple of 16."""
    first, second = uniforms.reshape(-1, 2, 8).swapaxes(0, 1)
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def glorot(shape: tuple[int, ...]) -> float:
    """Return the standard deviation of ``xavier_normal_`` (Glorot & Bengio 2010)."""
    return float(np.sqrt(2 / ((shape[0] + shape[1]) * np.prod(shape[2:]))))


def utilise_weights(cut: Mapping[str, np.ndarray], shapes: Mapping[str, tuple]) -> dict:
    """Return the weights of U-TILISE's golden vectors, ``{name: float32 array}``.

    Its authors' initialisation draws layer by layer: kernels by Glorot & Bengio, here twice as
    wide in the last layers, biases with a standard deviation of 1, here a tenth.

    Args:
        cut: ``seed``, ``first`` (numbers drawn before), ``names`` in the order of drawing, each
            array that cannot be drawn again as ``state/NAME``, and ``wrong`` and ``right``, the
            places among all that was drawn again where rounding differs, and their values.
        shapes: of every weight by name.
    """
    names = [str(name) for name in cut["names"]]
    sizes = [int(np.prod(shapes[name])) for name in names]
    place = int(cut["first"])
    uniforms = uniform(int(cut["seed"]), place + sum(sizes))
    drawn = []
    for name, size in zip(names, sizes, strict=True):
        if f"state/{name}" not in cut:
            wide = 2 if name.startswith("out_conv") else 1
            scale = wide * glorot(shapes[name]) if name.endswith("weight") else 0.1
            drawn.append(scale * normal(uniforms[place : place + size]))
        place += size
    flat = np.concatenate(drawn).astype(np.float32).astype(np.float16).astype(np.float32)
    flat[cut["wrong"]] = cut["right"]
    state, place = {}, 0
    for name, size in zip(names, sizes, strict=True):
        if f"state/{name}" not in cut:
            state[name] = flat[place : place + size].reshape(shapes[name])
            place += size
    for name, array in cut.items():
        if name.startswith("state/"):
            state[name.removeprefix("state/")] = array.astype(np.float32)
    return state
