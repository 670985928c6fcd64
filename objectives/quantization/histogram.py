"""A streaming histogram and the ranges that four calibration methods read from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 2048
METHODS = ("max", "percentile", "entropy", "mse")
_SAMPLES = 1 << 16  # elements of one tensor and image that enter the histogram; min and max see them all
_LEVELS = 255  # steps of an 8-bit grid


class Histogram:
    """Counts of one tensor over many images; the range doubles, and bins merge in pairs, as values need it.

    Attributes:
        low: Exact minimum of all values seen.
        high: Exact maximum.
        start: Left edge of the first bin.
        width: Width of one bin.
        counts: ``(BINS,)`` float64 counts.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.start, self.width = 0.0, 0.0
        self.counts = np.zeros(BINS)

    def add(self, values: NDArray[np.float32]) -> None:
        """Adds the values of one image.

        Args:
            values: Any shape, finite.

        Raises:
            ValueError: A value is NaN or infinite.
        """
        flat = values.ravel()
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low + high):
            raise ValueError("holds NaN or infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.width == 0.0:
            span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12)
            self.start, self.width = low, 1.001 * span / BINS
        while high >= self.start + BINS * self.width or low < self.start:
            self._grow(left=low < self.start)
        # An odd step never locks onto a row length, so the sample stays spread over the image.
        sample = flat[:: max(flat.size // _SAMPLES, 1) | 1]
        # In double precision: the difference of two finite floats need not be one.
        index = (np.subtract(sample, self.start, dtype=np.float64) * (1.0 / self.width)).astype(np.int64)
        self.counts += np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS) * (flat.size / sample.size)

    @property
    def filled(self) -> bool:
        """Whether it has seen a value."""
        return self.low <= self.high

    def _grow(self, left: bool) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS)
        if left:
            self.counts[BINS // 2 :] = merged
            self.start -= BINS * self.width
        else:
            self.counts[: BINS // 2] = merged
        self.width *= 2.0

    @property
    def centres(self) -> NDArray[np.float64]:
        """Bin centres ``(BINS,)``."""
        return np.asarray(self.start + (np.arange(BINS) + 0.5) * self.width, dtype=np.float64)

    def range(self, method: str, percentile: float = 99.999) -> tuple[float, float]:
        """Returns the clipping range ``(low, high)``, which always contains 0.

        Args:
            method: ``max``: the exact extremes. ``percentile``: cuts `(100 - percentile) / 2` per cent of the values
                off either side. ``mse``: minimises clipping plus rounding error. ``entropy``: minimises the KL
                divergence between the clipped distribution and its 8-bit image (Migacz, "8-bit inference with
                TensorRT", 2017).
            percentile: Share of values kept, in per cent.
        """
        low, high = {
            "max": lambda: (self.low, self.high),
            "percentile": lambda: self._percentile(percentile),
            "mse": self._mse,
            "entropy": self._entropy,
        }[method]()
        return float(min(low, 0.0)), float(max(high, 0.0))

    def _percentile(self, percentile: float) -> tuple[float, float]:
        cumulative = np.cumsum(self.counts) / self.counts.sum()
        tail = (1.0 - percentile / 100.0) / 2.0
        low = self.start + np.searchsorted(cumulative, tail) * self.width
        high = self.start + (np.searchsorted(cumulative, 1.0 - tail) + 1) * self.width
        return max(low, self.low), min(high, self.high)

    def _mse(self) -> tuple[float, float]:
        best, chosen = np.inf, (self.low, self.high)
        centres, total = self.centres, self.counts.sum()
        for low in self.low * np.linspace(1.0, 0.3, 15):
            for high in self.high * np.linspace(1.0, 0.2, 33):
                outside = np.clip(centres, low, high) - centres
                error = float(self.counts @ outside**2) + total * ((high - low) / _LEVELS) ** 2 / 12
                if error < best:
                    best, chosen = error, (float(low), float(high))
        return chosen

    def _entropy(self) -> tuple[float, float]:
        best, chosen = np.inf, (self.low, self.high)
        limit = max(abs(self.low), abs(self.high))
        centres = self.centres
        for cut in limit * np.linspace(0.15, 1.0, 64):
            low, high = max(self.low, -cut), min(self.high, cut)
            inside = (centres >= low) & (centres <= high)
            if inside.sum() < 2:
                continue
            clipped = self.counts[inside].copy()
            clipped[0] += self.counts[centres < low].sum()
            clipped[-1] += self.counts[centres > high].sum()
            divergence = _divergence(clipped, self.counts[inside])
            if divergence < best:
                best, chosen = divergence, (low, high)
        return chosen


def _divergence(clipped: NDArray[np.float64], inside: NDArray[np.float64]) -> float:
    """KL divergence of the clipped histogram from its image on `_LEVELS + 1` levels; both ``(bins,)``."""
    level = (np.arange(inside.size) * (_LEVELS + 1) // inside.size).astype(np.int64)
    filled = inside > 0
    total = np.bincount(level, inside, minlength=_LEVELS + 1)
    number = np.bincount(level, filled, minlength=_LEVELS + 1)
    image = np.where(filled, (total / np.maximum(number, 1))[level], 0.0)
    p, q = clipped / clipped.sum(), image / max(image.sum(), 1e-12)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-9))).sum())
