"""DSen2-CR on OpenVINO: the same layers in less time and memory on a CPU, and in int8.

The layers are those of :func:`unveil.models.dsen2cr.weights.layers_of`. Three things keep lower
precision honest:

- The kernel of the first convolution is split in two bfloat16 parts. Rounded to one, it shifts
  the colour of the whole image, which costs more than all other roundings together.
- int8 quantises the inner convolutions only: inputs by the range seen on calibration patches,
  kernels by the largest weight of each output channel.
- What the rounding of a kernel adds on average (its error times the mean of its input) is
  taken off the bias, as in Nagel et al. 2019, Data-free quantization through weight
  equalization and bias correction, ICCV, section 4.2.

OpenVINO is imported by the functions that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil.models.dsen2cr.network import RESIDUAL_SCALE
from unveil.models.dsen2cr.weights import Layers

if TYPE_CHECKING:
    import openvino

Run = Callable[[np.ndarray], np.ndarray]
HINTS = {"float32": "f32", "mixed_bfloat16": "bf16"}
INPUT_LEVELS = 256
KERNEL_LEVELS = 255
"""-127 to 127: symmetric about zero."""


@dataclass(frozen=True)
class Activation:
    """What the input of one convolution looks like.

    Attributes:
        low: smallest value.
        high: largest value.
        mean: ``(C,)`` mean of each channel.
    """

    low: float
    high: float
    mean: np.ndarray

    @property
    def limits(self) -> tuple[float, float]:
        """First and last value of the 256 levels; zero is always one of them."""
        if self.low >= 0:
            return 0.0, self.high
        most = max(self.high, -self.low)
        return -most * 128 / 127, most


@cache
def half_precision() -> str:
    """Return ``mixed_bfloat16`` where this processor has instructions for it, else ``float32``."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "mixed_bfloat16" if "BF16" in able else "float32"


def compile_network(
    layers: Layers, *, precision: str, activations: Sequence[Activation] | None = None
) -> Run:
    """Return inference, ``(N, H, W, C)`` to ``(N, H, W, B)`` float32 in network units.

    Args:
        layers: weights.
        precision: ``float32`` or ``mixed_bfloat16``.
        activations: one per layer; given, the inner convolutions are int8 and ``precision``
            is that of the rest.
    """
    import openvino

    model, _ = _graph(layers, split=precision != "float32", activations=activations)
    # One stream: a tile fills all cores, and every stream would hold a copy of the activations.
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    core = openvino.Core()
    compiled = core.compile_model(model, "CPU", hints)

    def run(batch: np.ndarray) -> np.ndarray:
        nonlocal compiled
        try:
            compiled = compiled or core.compile_model(model, "CPU", hints)
            return compiled([np.ascontiguousarray(batch, np.float32)])[0]
        except RuntimeError:
            compiled = None  # out of memory leaves it unfit, even for smaller tiles
            raise

    return run


def observe(layers: Layers, patches: Sequence[np.ndarray]) -> list[Activation]:
    """Return what the input of each convolution looks like in float32.

    Args:
        layers: weights.
        patches: ``(N, H, W, C)`` batches in network units.
    """
    import openvino
    from openvino import opset13 as op

    model, inputs = _graph(layers)
    outputs = []
    for tensor in inputs:
        outputs += [op.reduce_min(tensor, [0, 1, 2, 3]), op.reduce_max(tensor, [0, 1, 2, 3])]
        outputs += [op.reduce_mean(tensor, [0, 2, 3])]
    observed = openvino.Model(outputs, model.get_parameters(), "observed")
    compiled = openvino.Core().compile_model(observed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = []
    for patch in patches:
        answer = compiled([patch])
        seen.append([np.array(answer[n]) for n in range(len(outputs))])
    return [
        Activation(
            low=float(min(one[n] for one in seen)),
            high=float(max(one[n + 1] for one in seen)),
            mean=np.mean([one[n + 2] for one in seen], axis=0),
        )
        for n in range(0, len(outputs), 3)
    ]


def _graph(
    layers: Layers, *, split: bool = False, activations: Sequence[Activation] | None = None
) -> tuple[openvino.Model, list]:
    """Return the network, channels last outside, and the inputs of its convolutions."""
    import openvino
    from openvino import opset13 as op

    inputs: list = []

    def convolve(tensor: Any, scale: float = 1.0) -> Any:
        number = len(inputs)
        inputs.append(tensor)
        layer = layers[number]
        weights, bias = (np.float32(scale) * values for values in (layer.kernel, layer.bias))
        weights = np.ascontiguousarray(weights.transpose(3, 2, 0, 1))
        kernel: Any = op.constant(weights)
        inner = 0 < number < len(layers) - 1
        if number == 0 and split:
            tensor = op.concat([tensor, tensor], 1)
            kernel = op.constant(_split(weights))
        elif inner and activations is not None:
            seen = activations[number]
            bias = bias + _mean_error(weights, seen.mean)
            tensor = _levels(tensor, *seen.limits, INPUT_LEVELS)
            most = _largest(weights)
            kernel = _levels(kernel, -most, most, KERNEL_LEVELS)
        apart = [layer.dilation] * 2  # and as many zeros around, so that the size stays
        made = op.convolution(tensor, kernel, [1, 1], apart, apart, apart)
        return op.add(made, op.constant(bias.reshape(1, -1, 1, 1).astype(np.float32)))

    channels, bands = layers[0][0].shape[2], layers[-1][0].shape[3]
    source = op.parameter([-1, -1, -1, channels], np.float32, name="cloudy")
    x = op.relu(convolve(op.transpose(source, [0, 3, 1, 2])))
    for _ in range(len(layers) // 2 - 1):
        hidden = op.relu(convolve(x))
        x = op.add(x, convolve(hidden, RESIDUAL_SCALE))
    change = op.transpose(convolve(x), [0, 2, 3, 1])
    image = op.slice(source, [0], [bands], [1], [3])
    return openvino.Model([op.add(image, change)], [source], "dsen2cr"), inputs


def _levels(tensor: Any, low: Any, high: Any, count: int) -> Any:
    from openvino import opset13 as op

    low, high = np.float32(low), np.float32(high)
    return op.fake_quantize(tensor, low, high, low, high, count)


def _split(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel's bfloat16 values and, as further input channels, what they leave over."""
    bits = kernel.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    coarse = rounded.view(np.float32)
    return np.concatenate([coarse, kernel - coarse], axis=1)


def _largest(kernel: np.ndarray) -> np.ndarray:
    """Return the largest size of the weights of each output channel, never zero."""
    return np.maximum(np.abs(kernel).max(axis=(1, 2, 3), keepdims=True), np.float32(1e-12))


def _mean_error(kernel: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return what rounding a kernel (OIHW) takes off its output on average."""
    step = _largest(kernel) / (KERNEL_LEVELS // 2)
    error = kernel - np.rint(kernel / step) * step
    return error.sum(axis=(2, 3)) @ mean.ravel()
