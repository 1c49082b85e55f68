"""The network of DSen2-CR in Keras, channels-last: optical bands first, then VV and VH.

Keras and TensorFlow are imported by the functions that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil.bands import SAR2

if TYPE_CHECKING:
    import keras

    from unveil.weights.arrays import NamedArrays

KERNEL = 3
RESIDUAL_SCALE = 0.1


def build_network(
    *,
    bands: int,
    radar: bool,
    features: int = 256,
    blocks: int = 16,
    dilations: Sequence[int] = (1,),
    precision: str | None = None,
) -> keras.Model:
    """Build the network of section 3.1 without weights of its own.

    Args:
        bands: optical bands, the first channels of the input.
        radar: whether VV and VH follow them.
        features: channels of the hidden layers.
        blocks: residual blocks.
        dilations: of the convolutions of the blocks, over and over; published: 1.
        precision: Keras dtype policy of the hidden layers, by default Keras' global one. The
            first and last convolutions and the addition to the image are always float32.

    Returns:
        A model from ``(N, H, W, bands [+ 2])`` to ``(N, H, W, bands)`` float32 in network
        units, for any N, H and W. Its convolutions are named ``conv_01``, ``conv_02`` ...
    """
    import keras

    count = 0

    def convolve(
        tensor: Any,
        filters: int,
        activation: str | None = None,
        dilation: int = 1,
        dtype: str | None = precision,
    ) -> Any:
        nonlocal count
        count += 1
        return keras.layers.Conv2D(
            filters,
            KERNEL,
            padding="same",
            activation=activation,
            dilation_rate=dilation,
            kernel_initializer="he_uniform",
            data_format="channels_last",
            dtype=dtype,
            name=f"conv_{count:02d}",
        )(tensor)

    source = keras.Input((None, None, bands + (len(SAR2) if radar else 0)), name="cloudy")
    # Its kernel rounded to bfloat16 would shift the colour of the whole image (up to 0.1 dB).
    x = convolve(source, features, "relu", dtype="float32")
    for block, dilation in enumerate(block_dilations(blocks, dilations), 1):
        residual = convolve(convolve(x, features, "relu", dilation), features, None, dilation)
        scale = keras.layers.Rescaling(RESIDUAL_SCALE, dtype=precision, name=f"scale_{block:02d}")
        x = keras.layers.Add(dtype=precision, name=f"block_{block:02d}")([x, scale(residual)])
    # Under thick cloud the change is 4000 DN and more; bfloat16 would round it to 32 DN.
    change = convolve(x, bands, dtype="float32")
    output = keras.layers.Add(dtype="float32", name="clear")([source[..., :bands], change])
    return keras.Model(source, output, name="dsen2cr")


def block_dilations(blocks: int, dilations: Sequence[int]) -> list[int]:
    """Return the dilation of each block."""
    return [dilations[number % len(dilations)] for number in range(blocks)]


def receptive_field(blocks: int, dilations: Sequence[int]) -> int:
    """Return how far a pixel of the output sees, in pixels."""
    return (2 + 2 * sum(block_dilations(blocks, dilations))) * (KERNEL // 2)


def convolutions(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the convolutions of a network of :func:`build_network` in order."""
    found = [layer for layer in network.layers if layer.name.startswith("conv_")]
    return sorted(found, key=lambda layer: int(layer.name.removeprefix("conv_")))


def network_arrays(network: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights as ``kernel_01`` (HWIO), ``bias_01``, ``kernel_02`` ..., to be saved."""
    arrays: dict[str, np.ndarray] = {}
    for number, layer in enumerate(convolutions(network), 1):
        kernel, bias = layer.get_weights()
        arrays |= {f"kernel_{number:02d}": kernel, f"bias_{number:02d}": bias}
    return arrays


def load_weights(network: keras.Model, weights: NamedArrays) -> None:
    """Put weights into a network of :func:`build_network`, layer by layer in order.

    Names do not matter, only order: each kernel (HWIO, in files of channels-first models
    too) is followed by its bias.

    Raises:
        InputError: if count or shapes differ from the network's, or values are not finite
            or all zero.
    """
    from unveil.models.dsen2cr.weights import layers_of

    layers = convolutions(network)
    shapes = [tuple(layer.kernel.shape) for layer in layers]
    for layer, found in zip(layers, layers_of(weights, shapes), strict=True):
        layer.set_weights([found.kernel, found.bias])


def compile_network(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return inference as one graph, ``(N, H, W, C)`` to ``(N, H, W, B)`` float32.

    One graph serves every N, H and W; XLA is off because it is slower on CPUs.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, network.input_shape[-1]), tf.float32)]

    @tf.function(input_signature=signature, jit_compile=False)
    def run(batch: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(batch, training=False), tf.float32)

    return lambda batch: run(tf.constant(batch, tf.float32)).numpy()
