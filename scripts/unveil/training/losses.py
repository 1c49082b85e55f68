"""Training losses, on channels-last tensors in the network's unit."""

from __future__ import annotations

from typing import Any

from keras import ops


def cloud_adaptive_loss(prediction: Any, *, clear: Any, cloudy: Any, occluded: Any) -> Any:
    r"""Return the cloud-adaptive regularised loss of DSen2-CR, with :math:`\lambda = 1`.

    .. math:: \operatorname{mean}|m (p - t) + (1 - m)(p - x)| + \lambda \operatorname{mean}|p - t|

    Occluded pixels (m = 1) must meet the truth t, clear ones the input x, and all of them
    the truth once more. With simulated clouds x and t differ on clear pixels by the thin rim
    of clouds only. Meraner et al. (2020), ISPRS J. Photogramm. Remote Sens. 166, section 3.2.

    Args:
        prediction: ``(N, H, W, B)`` output of the network.
        clear: ``(N, H, W, B)`` truth.
        cloudy: ``(N, H, W, B)`` input.
        occluded: ``(N, H, W, 1)``, 1 under cloud or shadow.

    Returns:
        A scalar tensor.
    """
    wanted = occluded * clear + (1 - occluded) * cloudy
    return ops.mean(ops.abs(prediction - wanted)) + ops.mean(ops.abs(prediction - clear))
