"""What the networks with published weights of PyTorch share: reading them, and one graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unveil.models.base import Model
from unveil.weights.read import read_state

if TYPE_CHECKING:
    import tensorflow as tf

    from unveil.models.layers.torch_state import TorchLayers


class SequenceNetwork(Model):
    """A published network from frames and their days to images.

    Class attributes:
        state_key: where a checkpoint holds the weights.
    """

    network = True
    backend = "tensorflow"
    origin = "published"
    state_key: ClassVar[str]
    _graph: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape (PyTorch's layout) of every weight."""

    @abstractmethod
    def forward(self, layers: TorchLayers, frames: tf.Tensor, days: tf.Tensor) -> tf.Tensor:
        """Return the images of frames ``(N, T, H, W, C)`` on days ``(N, T)``."""

    def load(self) -> None:
        """Load the weights (a published checkpoint, or a ``.npz`` of the same names).

        Raises:
            InputError: if they are missing, damaged or of another architecture.
        """
        from unveil.models.layers.torch_state import compile_network

        state = read_state(self.weights, self.state_key, self.shapes())
        self.weights_checksum = state.sha256
        self._graph = compile_network(self.forward, state.arrays)

    def run(self, frames: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Run the network, loaded when it was not; arrays as in :meth:`forward`."""
        if self._graph is None:
            self.load()
        assert self._graph is not None
        return self._graph(frames, days)
