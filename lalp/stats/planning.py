"""How many units would settle what is not resolved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from lalp.stats.intervals import Estimate, check_level, t_interval, t_quantile
from lalp.stats.significance import standard_error

ALIKE_UNITS = 1000
"""A difference that needs more units than this counts as none at this precision."""


def units_needed(
    values: Sequence[float] | float, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Fewest units with which a two-sided paired t test finds a mean difference.

    Exact: by the noncentral t distribution. It takes the mean and the spread that were seen for the
    true ones, which themselves are known no better than their intervals say.

    Args:
        values: A difference for each unit; or their mean over their standard deviation.
        power: How likely the test is to find the difference.
        level: How likely it is to find one where there is none.

    Returns:
        A whole number, at least 2; NaN for a mean of 0 and for fewer than two values.

    Example:
        >>> units_needed(0.5), units_needed([0.3, -0.1, 0.3, -0.1])
        (34.0, 44.0)
    """
    check_level(power)
    check_level(level)
    effect = abs(values if isinstance(values, int | float) else _effect(values))
    if math.isnan(effect) or effect == 0:
        return math.nan
    if math.isinf(effect):
        return 2.0
    z = stats.norm.isf(level / 2) + stats.norm.ppf(power)
    needed = max(2, math.ceil((z / effect) ** 2))
    # Beyond a million units, Student's t is the normal distribution.
    while needed > 2 and needed < 1_000_000 and _t_power(effect, needed, level) >= power:
        needed -= 1
    while needed < 1_000_000 and _t_power(effect, needed, level) < power:
        needed += 1
    return float(needed)


def _effect(values: Sequence[float]) -> float:
    """Mean over standard deviation."""
    known = np.asarray(values, dtype=float)
    if len(known) < 2:
        return math.nan
    mean, spread = float(known.mean()), float(known.std(ddof=1))
    return mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0


def power_of(difference: float, spread: float, num_units: int, level: float = 0.05) -> float:
    """How likely a paired t test over so many units finds a mean difference.

    ``spread`` is the standard deviation of the differences. NaN for fewer than two units.

    Example:
        >>> round(power_of(0.08, 0.08, 12), 2)
        0.88
    """
    check_level(level)
    if num_units < 2 or math.isnan(spread):
        return math.nan
    if not spread:
        return float(difference != 0)
    return _t_power(abs(difference) / spread, num_units, level)


def detectable(spread: float, num_units: int, *, power: float = 0.8, level: float = 0.05) -> float:
    """The mean difference that a paired t test over so many units finds with the given power.

    NaN for fewer than two units, and where scipy does not know the noncentral t.

    Example:
        >>> round(detectable(0.08, 12), 3)
        0.071
    """
    check_level(power)
    check_level(level)
    if num_units < 2 or math.isnan(spread):
        return math.nan
    # The noncentral t is not known (NaN) far out, so the bracket grows from below.
    high = 0.01
    while (found := _t_power(high, num_units, level)) < power:
        high *= 2
    if math.isnan(found):
        return math.nan
    found = optimize.brentq(lambda effect: _t_power(effect, num_units, level) - power, 0, high)
    return spread * float(found)


def _t_power(effect: float, num_units: int, level: float) -> float:
    """How likely a two-sided t test finds an effect in standard deviations above 0."""
    critical, center = t_quantile(1 - level, num_units), effect * math.sqrt(num_units)
    tails = stats.nct(num_units - 1, center)
    # scipy does not know the other tail (NaN) where it is smaller than any number that counts.
    other = tails.cdf(-critical)
    return float(tails.sf(critical) + (0.0 if math.isnan(other) else other))


def trials_needed(
    share: float, against: float, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Fewest trials with which Wilson's interval of a share excludes another share.

    With that many trials or any more, the interval does so with the given power. Exact up to 10,000
    trials: by the binomial distribution; above by the normal one. NaN for equal shares.

    Example:
        >>> trials_needed(0.7, against=0.5)
        48.0
    """
    if math.isnan(share) or share == against:
        return math.nan
    z, own, other = stats.norm.isf(level / 2), share * (1 - share), against * (1 - against)
    needed = (z * math.sqrt(other) + stats.norm.ppf(power) * math.sqrt(own)) / (share - against)
    normal = math.ceil(needed**2)
    if normal > 10_000:
        return float(normal)
    trials = np.arange(1, 2 * normal + 100)
    # Wilson's interval holds all shares that a score test does not reject.
    center, reach = trials * against, z * np.sqrt(trials * other)
    below = stats.binom.cdf(np.ceil(center - reach) - 1, trials, share)
    above = stats.binom.sf(np.floor(center + reach), trials, share)
    # The power goes up and down with single trials: what counts is from where on it suffices.
    lacking = trials[below + above < power]
    return float(lacking.max(initial=0) + 1)


def what_resolves(
    found: Estimate | Sequence[float], unit: str = "prompts", *, against: float = 0.0
) -> str:
    """How many units would tell a number from another one, in words for a verdict.

    Args:
        found: A difference for each unit; or an `Estimate`, whose interval is read as one of
            Student's t, which it is for means.
        unit: What is counted.
        against: The number that the interval must exclude.

    Example:
        >>> what_resolves([0.3, -0.1, 0.3, -0.1]), what_resolves(Estimate(0.3, 0.1, 0.5, 20))
        ('44 prompts', 'already resolved')
    """
    one = found if isinstance(found, Estimate) else t_interval(found)
    return what_resolves_all([one], unit, against=against)


def what_resolves_all(
    found: Sequence[Estimate], unit: str = "prompts", *, against: float = 0.0
) -> str:
    """How many units would tell each of several numbers from another one: as the hardest asks.

    Example:
        >>> what_resolves_all([Estimate(0.3, 0.1, 0.5, 20), Estimate(0.1, -0.1, 0.3, 20)])
        '150 prompts'
    """
    needed = []
    for one in found:
        if one.low > against or one.high < against:
            continue
        error = standard_error(one, against)
        if math.isnan(error):
            return f"not known: no interval over {one.num_units} {unit}"
        spread = error * math.sqrt(one.num_units)
        needed.append(units_needed((one.value - against) / spread if spread else 0.0))
    # NaN, which no number of units resolves, counts as the most.
    return needed_text(max(needed, key=_or_infinite), unit) if needed else "already resolved"


def _or_infinite(needed: float) -> float:
    return math.inf if math.isnan(needed) else needed


def needed_text(needed: float, unit: str = "prompts") -> str:
    """What `units_needed` or `trials_needed` found, in words.

    Example:
        >>> needed_text(20.0), needed_text(1683.0, "seeds")
        ('20 prompts', '1,700 seeds: alike at this precision')
    """
    if math.isnan(needed):
        return f"no number of {unit}: no difference"
    # Of a planned number, two digits are known at most.
    step = 10 ** max(0, len(f"{needed:.0f}") - 2)
    text = f"{math.ceil(needed / step) * step:,.0f} {unit}"
    return f"{text}: alike at this precision" if needed > ALIKE_UNITS else text
