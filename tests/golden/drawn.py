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


def default_bound(shape: tuple[int, ...]) -> float:
    """Return up to where a layer of a kernel starts uniform by default, its bias alike."""
    return float(1 / np.sqrt(np.prod(shape[1:])))


def draw_again(cut: Mapping[str, np.ndarray], shapes: Mapping[str, tuple]) -> dict:
    """Return all weights of a cut, ``{name: float32 array}``.

    Args:
        cut: the ``seed``; by weight that is drawn again ``names``, ``starts`` (numbers drawn
            before it), ``scales`` (standard deviation or bound) and whether it is ``normal``
            or uniform around 0; ``signs``, packed bits where a step of ``step`` of the Adam
            optimiser went up from there; ``wrong`` and ``right``, the places among all of
            them where rounding or no step at all differs, and their values; the other weights
            as ``state/NAME``.
        shapes: of every weight by name.
    """
    names = [str(name) for name in cut["names"]]
    sizes = [int(np.prod(shapes[name])) for name in names]
    count = max(start + size for start, size in zip(cut["starts"], sizes, strict=True))
    uniforms, drawn = uniform(int(cut["seed"]), int(count)), []
    facts = zip(sizes, cut["starts"], cut["scales"], cut["normal"], strict=True)
    for size, start, scale, is_normal in facts:
        part = uniforms[start : start + size]
        drawn.append(scale * (normal(part) if is_normal else 2 * part - 1))
    flat = np.concatenate(drawn)
    if "signs" in cut:
        up = np.unpackbits(cut["signs"].astype(np.uint8), count=len(flat))
        flat += np.where(up, cut["step"], -cut["step"])
    flat = flat.astype(np.float32).astype(np.float16).astype(np.float32)
    flat[cut["wrong"]] = cut["right"]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    state = {n: part.reshape(shapes[n]) for n, part in zip(names, parts, strict=True)}
    for name, array in cut.items():
        if name.startswith("state/"):
            state[name.removeprefix("state/")] = array.astype(np.float32)
    return state
