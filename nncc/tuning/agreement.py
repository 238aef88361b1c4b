"""Whether kernels that are scheduled in different ways compute the same."""

from __future__ import annotations

import numpy as np

__all__ = ["wrong_by"]


_TOLERANCE = {"float16": 2.0**-9, "bfloat16": 2.0**-6}
"""By dtype, of the largest output."""


def wrong_by(expected: np.ndarray, found: np.ndarray) -> str:
    """What is wrong with a kernel's output; empty where only the order of its sums may differ.

    The error of a float32 sum of n terms in another order grows like sqrt(n) roundings of its largest partial sum; 1e-4
    of the largest output is 50 times that for n = 2^12, and a wrong index is far above it. What is stored in 16 bits is
    rounded to 11 of them, or 8: two units in the last place of the largest output.
    """
    if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return "it gives infinities or NaNs where the untuned kernel does not"
    finite = np.isfinite(expected)
    if not finite.any():
        return ""
    largest = float(np.abs(expected[finite]).max())
    error = float(np.abs(expected[finite].astype(np.float64) - found[finite].astype(np.float64)).max())
    if error > _TOLERANCE.get(str(expected.dtype), 1e-4) * largest:
        return f"it is wrong by {error:.2g}, where the untuned kernel's largest output is {largest:.2g}"
    return ""
