"""Margins of GALP and LALP under the premises of Theorems A.3 and A.4 and Corollary A.5."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from lalp.errors import InputError
from lalp.paper.theory.theory import Numbers, check_at_least


def galp_margin_bound(
    num_tokens: Numbers, num_logic: Numbers, eps: Numbers, delta: Numbers
) -> Numbers:
    """The least ``GALP(y-) - GALP(y+)`` (Theorem A.3): ``((T - |L|) eps - |L| Delta) / T``.

    ``|L|`` of the T tokens of either response bear logic. A logic token favours the right response
    by at most delta; any other token favours the wrong one by at least eps, in nats.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, num_logic=num_logic, eps=eps, delta=delta)
    if (np.asarray(num_logic) > num_tokens).any():
        raise InputError("num_logic: more logic tokens than tokens")
    return ((num_tokens - num_logic) * eps - num_logic * delta) / num_tokens


def fluency_boundary(eps: Numbers, delta: Numbers) -> Numbers:
    """The share ``|L|/T`` below which A.3 says that GALP is wrong: ``eps / (eps + Delta)``."""
    check_at_least(0, eps=eps, delta=delta)
    if (np.asarray(eps) + delta == 0).any():
        raise InputError("eps and delta are both 0: there is no boundary; make one positive")
    return eps / (eps + delta)


def lalp_margin_bound(num_steps: Numbers, gamma: Numbers, delta: Numbers = 0.0) -> Numbers:
    """The least ``LALP(y+) - LALP(y-)``: ``(gamma - (K - 1) delta) / K`` (Corollary A.5).

    The fatal one of the K steps of either response favours the right response by gamma, any other
    the wrong one by at most delta, in nats per token. At delta = 0 this is exact (Theorem A.4).
    """
    check_at_least(1, num_steps=num_steps)
    check_at_least(0, gamma=gamma, delta=delta)
    return (gamma - (num_steps - 1) * delta) / num_steps


def _with_difference(
    difference: Float[np.ndarray, "*batch"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Random log-probabilities a and b, at most 0, with ``b - a = difference``."""
    lower = -rng.exponential(size=difference.shape)
    return lower - np.maximum(difference, 0), lower - np.maximum(-difference, 0)


def check_fluency_trap(num_instances: int, seed: int, max_tokens: int = 120) -> pd.DataFrame:
    """GALP of random pairs of responses that satisfy A.3's premises, beside the bound.

    One half meets the premises with equality, the other with slack (``premise``). ``margin`` is
    GALP(y-) - GALP(y+), in nats per token as ``bound``.
    """
    check_at_least(1, num_instances=num_instances, max_tokens=max_tokens)
    rng = np.random.default_rng(seed)
    num_tokens = rng.integers(1, max_tokens + 1, size=num_instances)
    num_logic = rng.integers(0, num_tokens + 1)
    eps, delta = 10 ** rng.uniform(-2, 1, size=(2, num_instances))
    slack = np.arange(num_instances) % 2 == 1
    place = np.arange(max_tokens)
    tokens = place < num_tokens[:, None]
    # The choice of logic tokens does not change a mean; the first ones stand for any set.
    logic = place < num_logic[:, None]
    more = rng.exponential(size=tokens.shape) * slack[:, None]
    least = np.where(logic, -delta[:, None], eps[:, None])
    right, wrong = _with_difference(least + more * eps[:, None], rng)
    margin = (wrong - right).mean(-1, where=tokens)
    given = {"num_tokens": num_tokens, "num_logic": num_logic, "eps": eps, "delta": delta}
    columns = {"premise": np.where(slack, "slack", "equality"), **given}
    return pd.DataFrame(columns | {"margin": margin, "bound": galp_margin_bound(**given)})


def check_fatal_step(
    num_instances: int, seed: int, max_steps: int = 20, max_tokens: int = 8
) -> pd.DataFrame:
    """LALP of random pairs of responses that satisfy A.4's or A.5's premises, beside the bound.

    The pairs are in three equal parts (``premise``): all other steps equal (A.4), all others as
    adverse as A.5 allows (equality), and all steps anywhere that A.5 allows (slack). ``margin`` is
    LALP(y+) - LALP(y-), in nats per token as ``bound``.
    """
    check_at_least(1, num_instances=num_instances, max_steps=max_steps, max_tokens=max_tokens)
    rng = np.random.default_rng(seed)
    kind = np.arange(num_instances) % 3
    num_steps = rng.integers(1, max_steps + 1, size=num_instances)
    lengths = rng.integers(1, max_tokens + 1, size=(num_instances, max_steps))
    gamma, delta = 10 ** rng.uniform(-2, 1, size=(2, num_instances))
    delta[kind == 0] = 0.0
    others = np.where((kind == 2)[:, None], rng.uniform(-1, 1, size=lengths.shape), -1.0)
    step_margin = others * delta[:, None]
    fatal = rng.integers(0, num_steps)
    excess = rng.exponential(size=num_instances) * (kind == 2)
    step_margin[np.arange(num_instances), fatal] = gamma * (1 + excess)
    # Tokens that have the step's mean, and LALP (Eq. 3) of either response from them.
    tokens = np.arange(max_tokens) < lengths[..., None]
    noise = rng.normal(size=tokens.shape)
    # The step's mean must not change.
    noise -= noise.mean(-1, where=tokens, keepdims=True)
    pair = _with_difference(step_margin[..., None] + noise, rng)
    steps = np.arange(max_steps) < num_steps[:, None]
    lalp_wrong, lalp_right = (side.mean(-1, where=tokens).mean(-1, where=steps) for side in pair)
    given = {"num_steps": num_steps, "gamma": gamma, "delta": delta}
    columns = {"premise": np.array(["equal steps", "equality", "slack"])[kind], **given}
    margin = lalp_right - lalp_wrong
    return pd.DataFrame(columns | {"margin": margin, "bound": lalp_margin_bound(**given)})


def sample_dilution(num_instances: int, seed: int, max_steps: int = 100) -> pd.DataFrame:
    """How much LALP's margin exceeds GALP's when a single token of the responses differs.

    The factor is ``(1 / K |s|) / (1 / T)``, for the step s of a token drawn evenly from all
    (``any_token``) or a step drawn evenly (``any_step``). A response has 2 to ``max_steps`` steps
    with log-normal lengths.
    """
    check_at_least(1, num_instances=num_instances)
    check_at_least(2, max_steps=max_steps)
    rng = np.random.default_rng(seed)
    rows = []
    for num_steps in rng.integers(2, max_steps + 1, size=num_instances):
        lengths = 1 + rng.lognormal(3, 0.7, size=num_steps).astype(int)
        ratio = lengths.sum() / (num_steps * lengths)
        token = rng.integers(lengths.sum())
        step = np.searchsorted(lengths.cumsum(), token, side="right")  # the step that holds it
        rows.append((lengths.sum(), num_steps, ratio[step], rng.choice(ratio)))
    return pd.DataFrame(rows, columns=["num_tokens", "num_steps", "any_token", "any_step"])


def margin_boundaries(num_steps: int) -> pd.DataFrame:
    """Where each score becomes right, if both read the same token log-probabilities.

    One step of K bears the logic: each of its tokens favours the right response by ``delta`` nats.
    All tokens of all other steps favour the wrong one by ``eps``. GALP is right iff the step's
    share of tokens exceeds ``eps / (eps + delta)``, and LALP iff its share of steps ``1 / K`` does:
    above the ``delta / eps`` in ``galp`` and ``lalp``. ``relative_length`` is relative to the mean.
    """
    check_at_least(2, num_steps=num_steps)
    lengths = np.geomspace(0.1, min(10, num_steps), 61)
    return pd.DataFrame(
        {"relative_length": lengths, "galp": num_steps / lengths - 1, "lalp": num_steps - 1.0}
    )


def bound_errors(
    checked: pd.DataFrame, tolerance: float, tight: str = "equality"
) -> tuple[int, float, bool]:
    """How well the random pairs of `check_fluency_trap` or `check_fatal_step` keep their bound.

    Counts pairs below the bound by more than ``tolerance`` nats. Gives the largest distance from it
    under the exact premise ``tight``, and whether bounds above 0 have margins above 0.
    """
    excess = checked["margin"] - checked["bound"]
    signs = checked.loc[checked["bound"] > tolerance, "margin"] > 0
    off = excess[checked["premise"] == tight].abs().max()
    return int((excess < -tolerance).sum()), float(off), bool(signs.all())
