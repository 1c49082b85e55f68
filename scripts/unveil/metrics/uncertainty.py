r"""Is the standard deviation that a model gives any good? Calibration, and use.

The model's answer at a pixel and band is taken as a distribution with mean :math:`p` and standard
deviation :math:`\sigma`; :math:`e = p - t`. It is normal unless the raster of standard deviations
states another (:mod:`unveil.distribution`), and then every interval and the NLL are of that one.

======================  ============================================================
metric                  definition, unit
======================  ============================================================
NLL                     mean of the negative log density, for the normal
                        :math:`\tfrac12 \ln 2\pi\sigma^2 + e^2 / 2\sigma^2`, nat
coverage_68             share of pixels with the truth in the central 68 % interval
                        (likewise 10, 20 ... 90, 95), fraction
UCE                     :math:`\sum_k \frac{n_k}{n} |RMSE_k - RMV_k|` over 20 groups of
                        like :math:`\sigma`, reflectance
AUCE                    mean of :math:`|coverage(q) - q|` for q in 0...1, fraction
MAE_keep_90             MAE of the 90 % of pixels with the least :math:`\sigma`
                        (likewise 75, 50, 25), reflectance: the discard curve
======================  ============================================================

UCE: Laves et al. (2020, "Well-calibrated regression uncertainty in medical imaging with
deep learning"), on roots (RMV: root of the mean variance) so that its unit is reflectance.
AUCE: Gustafsson et al. (2020, arXiv:1906.01620). Everything streams: sums in 2048 bins of
:math:`\sigma` and 1000 bins of coverage, so quantiles are exact to a bin (0.7 % of
:math:`\sigma`, 0.1 % of coverage).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from unveil.distribution import NORMAL, Distribution
from unveil.metrics.registry import COVERAGES, KEPT
from unveil.metrics.streaming import Score

GROUPS = 20
_BINS, _LEVELS = 2048, 1000
_LEAST, _MOST = 1e-6, 10.0


class Calibration:
    """Sums that tell how good standard deviations are, over any number of windows."""

    def __init__(self, distribution: Distribution = NORMAL) -> None:
        self.distribution = distribution
        self.n = 0
        self._likelihood = 0.0
        self._levels = np.zeros(_LEVELS, np.int64)
        # Rows: pixels, absolute error, squared error, variance; by bin of sigma.
        self._bins = np.zeros((4, _BINS))

    def update(self, error: np.ndarray, std: np.ndarray) -> None:
        """Add pixels.

        Args:
            error: prediction - truth in reflectance, any shape.
            std: standard deviation of the prediction, same shape, positive.

        Raises:
            ValueError: if a standard deviation is not a positive number.
        """
        e, s = np.asarray(error, np.float64).ravel(), np.asarray(std, np.float64).ravel()
        if not (s > 0).all() or not np.isfinite(s).all():
            raise ValueError("a standard deviation must be a positive number")
        z = np.abs(e) / s
        self.n += e.size
        self._likelihood += float(np.sum(self.distribution.surprise(z, s)))
        # A pixel is inside every interval whose probability is at least its own level.
        level = np.minimum((self.distribution.central(z) * _LEVELS).astype(np.int64), _LEVELS - 1)
        self._levels += np.bincount(level, minlength=_LEVELS)
        position = np.log(np.clip(s, _LEAST, _MOST) / _LEAST) / np.log(_MOST / _LEAST)
        group = np.minimum((position * _BINS).astype(np.int64), _BINS - 1)
        for row, weights in enumerate((None, np.abs(e), e * e, s * s)):
            self._bins[row] += np.bincount(group, weights, minlength=_BINS)

    def metrics(self) -> dict[str, float | None]:
        """Return every metric of the table above; None without pixels."""
        of = {"NLL": self.likelihood, "UCE": self.uce, "AUCE": self.auce}
        of |= {f"coverage_{q}": partial(self.covered, q / 100) for q in COVERAGES}
        of |= {f"MAE_keep_{kept}": partial(self.discard, kept / 100) for kept in KEPT}
        return {name: work() if self.n else None for name, work in of.items()}

    def likelihood(self) -> float:
        """Mean negative logarithm of the likelihood, nat."""
        return self._likelihood / self.n

    def covered(self, q: float) -> float:
        """Share of pixels with the truth in the central interval of probability ``q``."""
        return float(self.coverage()[round(q * _LEVELS)])

    def coverage(self) -> np.ndarray:
        """Empirical coverage at the nominal levels 0, .001 ... 1, ``(1001,)`` float64."""
        return np.concatenate([[0.0], np.cumsum(self._levels) / self.n])

    def auce(self) -> float:
        """Area between empirical and nominal coverage, 0 (calibrated) ... 0.5."""
        nominal = np.linspace(0, 1, _LEVELS + 1)
        return float(np.trapezoid(np.abs(self.coverage() - nominal), nominal))

    def uce(self) -> float:
        """Mean gap between the error and the predicted one in groups of like sigma."""
        count, _, square, variance = self._bins
        # Groups of equal size where the bins allow: ties in sigma stay together.
        group = np.minimum((np.cumsum(count) - count) / self.n * GROUPS, GROUPS - 1)
        n, squares, variances = (
            np.bincount(group.astype(np.int64), x, minlength=GROUPS)
            for x in (count, square, variance)
        )
        some = n > 0
        gap = np.abs(np.sqrt(squares[some] / n[some]) - np.sqrt(variances[some] / n[some]))
        return float(np.sum(n[some] / self.n * gap))

    def discard(self, kept: float) -> float:
        """MAE of the fraction ``kept`` of pixels with the least standard deviation."""
        count, absolute = np.cumsum(self._bins[0]), np.cumsum(self._bins[1])
        wanted = kept * self.n
        return float(np.interp(wanted, [0, *count], [0, *absolute]) / wanted)

    def scores(self, region: str, *, bands: int) -> Iterator[Score]:
        """Yield the metrics as scores over bands; ``bands`` values make a pixel."""
        for metric, value in self.metrics().items():
            yield Score(region, "all", metric, value, self.n // bands)
