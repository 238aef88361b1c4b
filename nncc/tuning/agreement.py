"""Whether kernels that are scheduled in different ways compute the same."""

from __future__ import annotations

import numpy as np

__all__ = ["wrong_by"]


def wrong_by(expected: np.ndarray, found: np.ndarray) -> str:
    """What is wrong with a kernel's output; empty where only the order of its sums may differ.

    The error of a float32 sum of n terms in another order grows like sqrt(n) roundings of its largest partial sum; 1e-4
    of the largest output is 50 times that for n = 2^12, and a wrong index is far above it. What is stored as float16 is
    rounded to 11 bits: two units in the last place of the largest output.
    """
    if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return "it gives infinities or NaNs where the untuned kernel does not"
    finite = np.isfinite(expected)
    if not finite.any():
        return ""
    largest = float(np.abs(expected[finite]).max())
    error = float(np.abs(expected[finite].astype(np.float64) - found[finite]).max())
    if error > (2**-9 if expected.dtype == np.float16 else 1e-4) * largest:
        return f"it is wrong by {error:.2g}, where the untuned kernel's largest output is {largest:.2g}"
    return ""
