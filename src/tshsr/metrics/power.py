"""How often a comparison finds a true difference, where the error of the difference is itself an estimate.

With single runs the test's statistic is normal: its error is that of the images, of which there are many. Where seeds
have a part in the error, few runs tell it, and the statistic is noncentral Student's t.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

NORMAL = NormalDist()
POINTS = 400
"""Of the integral over errors: it is then right to 0.0001."""
SPAN = 8
"""How far it goes from the true error, in deviations of the estimated one."""
STEPS = 30
"""Of the search for a difference that is found often enough; each halves what is left."""


def freedom_of(error: float, of_seeds: float, freedom: int) -> float | None:
    """Degrees of freedom of an error, of which the part of the seeds alone is estimated from few runs.

        freedom error^4 / of_seeds^4        (Satterthwaite 1946)

    Returns:
        None where that part is below 1 % of the variance.
    """
    return freedom * (error / of_seeds) ** 4 if of_seeds > 0.1 * error else None


def share_found(difference: float, reach: float, error: float, freedom: float | None) -> float:
    """How often the interval leaves out zero, in 0..1.

        P( |z + d| > reach s ),   d = c difference      lengths in errors; z normal, freedom s^2 chi-squared

    That is P( |t| > reach ) of noncentral t. An error from few runs is too small on average, by c = E s.

    Args:
        difference: The true one.
        reach: From the estimate to the interval's end.
        error: The estimated standard error of the difference.
        freedom: See `freedom_of`.
    """
    if error == 0:
        return float(difference != 0)
    if freedom is None:
        return beyond(difference / error, reach / error)
    errors, weights = estimated_errors(freedom)
    shift = mean_error(freedom) * difference / error
    return float(weights @ [beyond(shift, end) for end in (reach / error * errors).tolist()])


def beyond(shift: float, end: float) -> float:
    """P( |z + shift| > end ), z normal."""
    return NORMAL.cdf(shift - end) + NORMAL.cdf(-shift - end)


def mean_error(freedom: float) -> float:
    """E s, freedom s^2 chi-squared: sqrt(2 / f) Γ((f + 1) / 2) / Γ(f / 2), below 1."""
    return math.sqrt(2 / freedom) * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))


def estimated_errors(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors s that may be estimated where the true one is 1, and how likely they are: s^(f - 1) exp(-f s^2 / 2)."""
    wide = SPAN / math.sqrt(2 * freedom)
    ends = np.linspace(max(0.0, 1 - wide), 1 + wide, POINTS + 1)
    errors = (ends[1:] + ends[:-1]) / 2
    logs = (freedom - 1) * np.log(errors) - freedom * errors**2 / 2
    weights = np.exp(logs - logs.max())
    return errors, weights / weights.sum()


def detectable(reach: float, error: float, freedom: float | None, power: float) -> float:
    """The smallest true difference that is found as often as `power`; arguments as in `share_found`."""
    if error == 0:
        return 0.0
    low, high = 0.0, reach + error
    while share_found(high, reach, error, freedom) < power:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if share_found(middle, reach, error, freedom) < power else (low, middle)
    return high
