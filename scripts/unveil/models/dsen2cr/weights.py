"""Weights of DSen2-CR as kernels and biases, checked against the model's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unveil.errors import InputError
from unveil.weights.arrays import NamedArrays, check_values


class Layer(NamedTuple):
    """One convolution.

    Attributes:
        kernel: HWIO, float32.
        bias: float32.
        dilation: pixels from one weight of the kernel to the next.
    """

    kernel: np.ndarray
    bias: np.ndarray
    dilation: int = 1


Layers = Sequence[Layer]


def layers_of(
    weights: NamedArrays,
    shapes: Sequence[tuple[int, ...]],
    *,
    dilations: Sequence[int] = (),
) -> Layers:
    """Return kernel (HWIO) and bias of each convolution as float32, checked.

    Args:
        weights: each kernel followed by its bias; names do not matter.
        shapes: of the kernels that the network has.
        dilations: of its convolutions; by default 1.

    Raises:
        InputError: if count or shapes differ, or values are not finite or all zero.
    """
    _check_architecture(weights, [shape for kernel in shapes for shape in (kernel, kernel[-1:])])
    check_values(weights)
    arrays = [array.astype(np.float32) for array in weights.arrays.values()]
    steps = dilations or [1] * len(shapes)
    return [Layer(*one) for one in zip(arrays[::2], arrays[1::2], steps, strict=True)]


def _check_architecture(weights: NamedArrays, expected: list[tuple[int, ...]]) -> None:
    found = [array.shape for array in weights.arrays.values()]
    if found == [tuple(shape) for shape in expected]:
        return
    kernels = [shape for shape in found if len(shape) == 4]
    wanted = [shape for shape in expected if len(shape) == 4]
    raise InputError(
        f"found {_describe(kernels)}; the model's options ask for {_describe(wanted)}"
        + ("" if len(found) == 2 * len(kernels) else f"; {len(found)} arrays in all"),
        file=weights.path,
        field=_first_difference(weights, expected),
        remedy="set the options 'features', 'blocks', 'bands' and 'radar' to those of the "
        "weights, or download the weights again",
    )


def _describe(kernels: Sequence[tuple[int, ...]]) -> str:
    if not kernels:
        return "no convolutions"
    return (
        f"{len(kernels)} convolutions of {kernels[0][-1]} features from {kernels[0][-2]} input "
        f"channels to {kernels[-1][-1]} output channels"
    )


def _first_difference(weights: NamedArrays, expected: list[tuple[int, ...]]) -> str | None:
    for (name, array), shape in zip(weights.arrays.items(), expected, strict=False):
        if array.shape != tuple(shape):
            return name
    return None
