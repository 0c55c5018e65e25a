"""The paper's toy theory as numbers (App. A): the result of a learner of pairs, and the gap.

The data is a chain of discrete steps z_1..z_K. The learner has one free distribution
``q(z_j | i, j, z_i)`` per context: a pair of steps i < j and the value of z_i. Arrays over pairs
follow `step_pairs`. Log-probabilities are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.special import log_softmax, xlogy

from lalp.errors import InputError

Letters = Float[np.ndarray, "*batch letters"]
Table = Float[np.ndarray, "*runs pairs letters letters"]
Masses = Float[np.ndarray, "*runs pairs letters"]
Lam = float | Float[np.ndarray, "*runs"]
Numbers = float | np.ndarray

# Largest error of a probability or a total mass that still counts as rounding.
_ROUNDING = 1e-9


def _check_distributions(values: Letters, name: str) -> None:
    if values.ndim == 0 or values.size == 0:
        raise InputError(f"{name}: needs a last axis of probabilities, at least one")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"{name}: holds a negative or non-finite probability; check its values")
    totals = values.sum(-1)
    worst = totals.flat[np.abs(totals - 1).argmax()]
    if abs(worst - 1) > _ROUNDING:
        raise InputError(
            f"{name}: probabilities sum to {worst:.6g}, not 1; normalise the last axis"
        )


def check_at_least(low: float, **values: Numbers) -> None:
    """Refuse a number that is not finite or below ``low``; the keywords name the number."""
    for name, value in values.items():
        array = np.atleast_1d(value)
        bad = array[~(np.isfinite(array) & (array >= low))]
        if bad.size:
            raise InputError(f"{name} must be finite and at least {low:g}, not {bad[0]:g}")


# --- one context (Prop. A.1) --------------------------------------------------------------------


def cross_entropy(p: Letters, q: Letters) -> Float[np.ndarray, "*batch"]:
    """``H(p, q) = -sum_z p(z) log q(z)``, in nats; infinite if q misses a letter of p."""
    return -xlogy(p, q).sum(-1)


def total_variation(p: Letters, q: Letters) -> Float[np.ndarray, "*batch"]:
    """Total-variation distance, half the sum of absolute differences: 0 to 1."""
    return np.abs(p - q).sum(-1) / 2


def smoothed_cross_entropy(
    p: Letters, u: Letters, q: Letters, lam: Lam
) -> Float[np.ndarray, "*batch"]:
    """``H(p, q) + lambda H(u, q)``: one context's share of the risk (Eq. 6), in nats."""
    check_at_least(0, lam=lam)
    # At lambda = 0 the background does not count, even if its cross-entropy is infinite.
    background = np.where(np.asarray(lam) > 0, cross_entropy(u, q), 0.0)
    return cross_entropy(p, q) + lam * background


def mixture_minimizer(p: Letters, u: Letters, lam: Lam) -> Letters:
    """The q that minimizes ``H(p, q) + lambda H(u, q)``: ``(p + lambda u) / (1 + lambda)`` (A.1).

    p is the data, u the background. Any other q is worse by ``(1 + lambda) KL(minimizer || q)``.
    """
    _check_distributions(p, "p")
    _check_distributions(u, "u")
    if p.shape[-1] != u.shape[-1]:
        raise InputError(f"p has {p.shape[-1]} letters, u {u.shape[-1]}: give both the same")
    check_at_least(0, lam=lam)
    weight = np.asarray(lam)[..., None]
    return (p + weight * u) / (1 + weight)


def check_minimizer(num_instances: int, num_others: int, seed: int) -> pd.DataFrame:
    """Compare random rivals with the closed form of Prop. A.1, in problems of 2 to 8 letters.

    Half of the rivals are drawn anywhere, half close to the closed form. There is a row per
    problem, in nats: how much worse the best rival is (``smallest_excess``), and the largest
    difference between a rival's excess and ``(1 + lambda) KL`` (``identity_error``).
    """
    check_at_least(1, num_instances=num_instances)
    check_at_least(2, num_others=num_others)
    rng = np.random.default_rng(seed)
    rows = []
    for num_letters in rng.integers(2, 9, size=num_instances):
        p, u = rng.dirichlet(np.ones(num_letters), size=2)
        lam = float(10 ** rng.uniform(-2, 2))
        best = mixture_minimizer(p, u, lam)
        near = np.log(best) + 0.1 * rng.normal(size=(num_others // 2, num_letters))
        far = np.log(rng.dirichlet(np.ones(num_letters), size=num_others - num_others // 2))
        others = np.exp(log_softmax(np.concatenate([near, far]), axis=-1))
        excess = smoothed_cross_entropy(p, u, others, lam) - smoothed_cross_entropy(p, u, best, lam)
        divergence = cross_entropy(best, others) - cross_entropy(best, best)
        error = np.abs(excess - (1 + lam) * divergence).max()
        rows.append((num_letters, lam, excess.min(), error))
    return pd.DataFrame(rows, columns=["num_letters", "lam", "smallest_excess", "identity_error"])


# --- chains of steps ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chains:
    """A batch of Markov chains z_1..z_K over a finite alphabet (Eq. 5)."""

    initial: Float[np.ndarray, "chains letters"]  # p(z_1)
    transitions: Float[np.ndarray, "chains links letters letters"]  # p(z_{k+1} | z_k), by z_k

    def __post_init__(self) -> None:
        shape = self.transitions.shape
        if self.initial.ndim != 2 or len(shape) != 4 or not shape[1]:
            raise InputError(
                "initial needs the axes chain and letter, transitions chain, link, letter, letter "
                "with at least one link"
            )
        chains, letters = self.initial.shape
        if shape != (chains, shape[1], letters, letters):
            expected = f"{chains} chains of {letters} letters"
            raise InputError(f"transitions of shape {shape} do not fit {expected}")
        _check_distributions(self.initial, "initial")
        _check_distributions(self.transitions, "transitions")

    @property
    def num_steps(self) -> int:
        """K, one more than the number of links."""
        return self.transitions.shape[1] + 1

    @property
    def num_letters(self) -> int:
        """Size of the alphabet."""
        return self.initial.shape[1]


def random_chains(num_chains: int, num_steps: int, num_letters: int, seed: int) -> Chains:
    """Chains with every row drawn from a flat Dirichlet distribution, a new one per link."""
    check_at_least(1, num_chains=num_chains)
    check_at_least(2, num_steps=num_steps, num_letters=num_letters)
    rng = np.random.default_rng(seed)
    flat = np.ones(num_letters)
    shape = (num_chains, num_steps - 1, num_letters)
    return Chains(rng.dirichlet(flat, size=num_chains), rng.dirichlet(flat, size=shape))


def balanced_chains(
    num_chains: int, num_steps: int, num_letters: int, num_permutations: int, seed: int
) -> Chains:
    """Chains with uniform steps: each link is a random mixture of random permutations.

    One permutation gives a deterministic chain, which never forgets.
    """
    check_at_least(1, num_chains=num_chains, num_permutations=num_permutations)
    check_at_least(2, num_steps=num_steps, num_letters=num_letters)
    rng = np.random.default_rng(seed)
    shape = (num_chains, num_steps - 1, num_permutations)
    weights = rng.dirichlet(np.ones(num_permutations), size=shape[:2])
    orders = rng.permuted(np.broadcast_to(np.arange(num_letters), (*shape, num_letters)), axis=-1)
    transitions = (weights[..., None, None] * np.eye(num_letters)[orders]).sum(axis=2)
    return Chains(np.full((num_chains, num_letters), 1 / num_letters), transitions)


def step_pairs(num_steps: int) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """All pairs of steps i < j, counted from 0: the order of every array over pairs."""
    return np.triu_indices(num_steps, k=1)


def pair_distances(num_steps: int) -> Int[np.ndarray, "pairs"]:
    """``j - i`` of every pair."""
    first, second = step_pairs(num_steps)
    return second - first


def marginals(chains: Chains) -> Float[np.ndarray, "chains steps letters"]:
    """``p(z_k)`` of every step."""
    steps = [chains.initial]
    for link in range(chains.num_steps - 1):
        steps.append(np.einsum("ca,cab->cb", steps[-1], chains.transitions[:, link]))
    return np.stack(steps, axis=1)


def pair_conditionals(chains: Chains) -> Table:
    """The true ``p(z_j | z_i)`` of every pair."""
    num_steps = chains.num_steps
    distances = pair_distances(num_steps)
    shape = (len(chains.initial), len(distances), chains.num_letters, chains.num_letters)
    links = np.full(shape, np.nan)  # so that reading a pair outside a hop of 1 would show
    links[:, distances == 1] = chains.transitions
    return chain_conditionals(links, num_steps, hop=1)


def chain_conditionals(q: Table, num_steps: int, hop: int) -> Table:
    """The scaffolded estimate of every ``p(z_j | z_i)``: local estimates, chained from i to j.

    The steps in between are summed out exactly. Only the learner's pairs at most ``hop`` apart are
    read; if the distance is no multiple of it, the chain ends with a shorter hop.
    """
    check_at_least(1, hop=hop)
    first, second = step_pairs(num_steps)
    place = np.zeros((num_steps, num_steps), dtype=int)
    place[first, second] = np.arange(len(first))
    chained = np.array(q)
    # From near to far, so the pair (i, j - rest) is already there.
    for distance in range(hop + 1, num_steps):
        for i in range(num_steps - distance):
            middle, j = i + hop, i + distance
            rest = chained[..., place[middle, j], :, :]
            chained[..., place[i, j], :, :] = q[..., place[i, middle], :, :] @ rest
    return chained


# --- the risk over all contexts (Eq. 6-7, Theorem A.2) ------------------------------------------


def window_weights(num_steps: int, window: int) -> Float[np.ndarray, "pairs"]:
    """How often each pair is shown: evenly up to distance ``window``, never beyond."""
    if not 1 <= window < num_steps:
        raise InputError(f"a window of {window} steps: choose 1 to {num_steps - 1}")
    seen = pair_distances(num_steps) <= window
    return seen / seen.sum()


def data_masses(chains: Chains, weights: Float[np.ndarray, "pairs"]) -> Table:
    """Probability that the data shows pair (i, j) with values z_i and z_j.

    ``weights`` is the share of each pair in the data, for example `window_weights`.
    """
    first, _ = step_pairs(chains.num_steps)
    if weights.shape != first.shape:
        given = f"weights of shape {weights.shape} for {len(first)} pairs"
        raise InputError(f"{given}: give one per pair")
    _check_distributions(weights, "weights")
    context = weights[:, None] * marginals(chains)[:, first]
    return context[..., None] * pair_conditionals(chains)


def matched_background(joint: Table) -> Masses:
    """Background mass of every context: the data's mass if there are data, else any value.

    Then A.2 reads ``(p + lambda u) / (1 + lambda)`` on seen pairs, which is label smoothing.
    """
    context = joint.sum(-1)
    return np.where(context > 0, context, even_background(joint))


def even_background(joint: Table) -> Masses:
    """Equal background mass for every context, as in the paper's uniform background.

    Then A.2 mixes data and background with the weight ``mu / (mu + lambda nu)``.
    """
    shape = joint.shape[:-1]
    return np.full(shape, 1 / (shape[-1] * shape[-2]))


def pair_minimizer(joint: Table, background: Masses, lam: Lam) -> Table:
    """The learner that minimizes the risk (Theorem A.2), in closed form.

    In a context of mass mu under the data and nu under the background it is ``(mu p + lambda nu u)
    / (mu + lambda nu)``, u uniform; mu is the sum of ``joint`` over z_j. The result is NaN in
    contexts without data if lambda or nu is 0: every q is a minimizer there.
    """
    check_at_least(0, lam=lam, joint=joint, background=background)
    smooth = np.asarray(lam)[..., None, None] * background
    total = joint.sum(-1) + smooth
    with np.errstate(invalid="ignore"):
        return (joint + smooth[..., None] / joint.shape[-1]) / total[..., None]


def train_learner(
    joint: Table,
    background: Masses,
    lam: Float[np.ndarray, "runs"],
    *,
    num_updates: int,
    batch_size: int | None = None,
    seed: int = 0,
) -> tuple[Int[np.ndarray, "records"], Float[np.ndarray, "records runs pairs letters letters"]]:
    """Minimize the risk (Eq. 6) by gradient descent: softmax logits per context, random start.

    The runs do not influence each other. Each update draws new ``batch_size`` pairs of the data, or
    takes the exact risk without one; the background is never sampled. The result is the learner
    after about 40 numbers of updates, denser at the start; the last one is the trained learner.
    """
    check_at_least(0, lam=lam, joint=joint, background=background)
    check_at_least(1, num_updates=num_updates)
    if batch_size is not None:
        check_at_least(1, batch_size=batch_size)
    rng = np.random.default_rng(seed)
    smooth = torch.from_numpy((lam[:, None, None] * background / joint.shape[-1])[..., None])
    logits = torch.from_numpy(rng.normal(size=joint.shape)).requires_grad_()
    # Contexts differ in mass by orders of magnitude, which Adam's steps do not depend on.
    optimizer = torch.optim.Adam([logits], lr=0.1)
    # With sampled pairs, a constant step size would leave noise at the end.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=num_updates)
    records = np.unique(np.geomspace(1, num_updates + 1, 40).round().astype(int) - 1)
    kept, data = [], torch.from_numpy(joint)
    num_threads = torch.get_num_threads()
    # On tables this small, threads that wait for one another take most of the time.
    torch.set_num_threads(1)
    try:
        for update in range(num_updates + 1):
            log_q = logits.log_softmax(-1)
            if update in records:
                kept.append(log_q.detach().exp().numpy())
            if batch_size is not None:
                data = torch.from_numpy(sample_pairs(joint, batch_size, rng))
            optimizer.zero_grad()
            (-(data + smooth) * log_q).sum().backward()
            optimizer.step()
            schedule.step()
    finally:
        torch.set_num_threads(num_threads)
    return records, np.stack(kept)


def sample_pairs(joint: Table, num_pairs: int, rng: np.random.Generator) -> Table:
    """Shares of ``num_pairs`` independent draws of pair and values, run by run."""
    flat = joint.reshape(len(joint), -1)
    return (rng.multinomial(num_pairs, flat) / num_pairs).reshape(joint.shape)


def learning_curves(chains: Chains, lams: Sequence[float], **options: int | None) -> pd.DataFrame:
    """How a learner of adjacent pairs approaches the closed form of Theorem A.2.

    One learner is trained per chain and lambda, with the matched background and the options of
    `train_learner`. ``error`` is the mean total-variation distance to ``(p + lambda u) / (1 +
    lambda)`` for adjacent pairs, and to u for pairs never seen.
    """
    joint = data_masses(chains, window_weights(chains.num_steps, 1))
    joint = np.concatenate([joint] * len(lams))
    background = matched_background(joint)
    lam = np.repeat(np.asarray(lams, dtype=float), len(chains.initial))
    updates, learned = train_learner(joint, background, lam, **options)
    # At lambda = 0 pairs never seen have no closed form; they are still compared with u.
    closed = np.nan_to_num(pair_minimizer(joint, background, lam), nan=1 / chains.num_letters)
    error = total_variation(learned, closed)
    adjacent = pair_distances(chains.num_steps) == 1
    runs = pd.DataFrame({"chain": np.arange(len(lam)) % len(chains.initial), "lam": lam})
    frames = [
        runs.assign(update=update, pairs=name, error=now[:, chosen].mean(axis=(1, 2)))
        for name, chosen in (("adjacent", adjacent), ("never seen", ~adjacent))
        for update, now in zip(updates, error, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def window_learner_errors(
    chains: Chains, lams: Sequence[float], windows: Sequence[int], **options: int
) -> pd.DataFrame:
    """How close learners of wider windows come to the closed form of Theorem A.2.

    Like `learning_curves`, for lambda above 0 and pairs up to each window's distance; ``error`` is
    the largest total-variation distance over all contexts of all chains.
    """
    cases = [(lam, window) for lam in lams for window in windows]
    shown = {w: data_masses(chains, window_weights(chains.num_steps, w)) for w in windows}
    joint = np.concatenate([shown[window] for _, window in cases])
    background = matched_background(joint)
    lam = np.repeat([float(lam) for lam, _ in cases], len(chains.initial))
    _, learned = train_learner(joint, background, lam, **options)
    error = total_variation(learned[-1], pair_minimizer(joint, background, lam))
    largest = error.reshape(len(cases), -1).max(-1)
    return pd.DataFrame(cases, columns=["lam", "window"]).assign(error=largest)


def learned_weights(
    chains: Chains, weights: Float[np.ndarray, "pairs"], lams: Sequence[float], **options: int
) -> pd.DataFrame:
    """The data's share in the learned result, beside ``mu / (mu + lambda nu)`` (Theorem A.2).

    The background is the same for every context; the data show some pairs more often than others,
    according to ``weights``. There is a row per context: ``ratio`` = mu / (lambda nu), ``closed``
    (the formula) and ``learned``, the place of q between u (0) and the true conditional (1).
    """
    joint = np.concatenate([data_masses(chains, weights)] * len(lams))
    background = even_background(joint)
    lam = np.repeat(np.asarray(lams, dtype=float), len(chains.initial))
    _, trained = train_learner(joint, background, lam, **options)
    uniform = 1 / chains.num_letters
    # Least squares: the learner need not lie exactly on the line from u to the truth.
    toward = np.concatenate([pair_conditionals(chains)] * len(lams)) - uniform
    context, smooth = joint.sum(-1), lam[:, None, None] * background
    columns = {
        "lam": lam[:, None, None],
        "distance": pair_distances(chains.num_steps)[:, None],
        "ratio": context / smooth,
        "closed": context / (context + smooth),
        "learned": ((trained[-1] - uniform) * toward).sum(-1) / (toward**2).sum(-1),
    }
    values = np.broadcast_arrays(*columns.values())
    return pd.DataFrame({name: one.ravel() for name, one in zip(columns, values, strict=True)})


# --- direct and scaffolded estimates (the reasoning gap) ----------------------------------------


def reasoning_gap(
    chains: Chains,
    lams: Sequence[float],
    windows: Sequence[int],
    *,
    num_pairs: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Errors of direct and scaffolded estimates, by distance and by the window of training.

    The learner is the closed form of Theorem A.2 with the matched background, the result of
    `train_learner`. It sees pairs up to the window's distance: ``num_pairs`` of them, or unlimited
    data. There are three errors (total-variation distance to the true ``p(z_j | z_i)``, mean over
    z_i and the pairs at a distance): ``direct`` asks the learner for the pair itself,
    ``scaffolded`` chains single steps, ``widest_hops`` chains hops as wide as the window.
    """
    if not all(lam > 0 for lam in lams):
        raise InputError(f"lambda must be above 0 here, not {min(lams)}: see pair_minimizer")
    if num_pairs is not None:
        check_at_least(1, num_pairs=num_pairs)
    rng = np.random.default_rng(seed)
    distances, truth = pair_distances(chains.num_steps), pair_conditionals(chains)
    # Values of z_i count as often as they occur.
    occurs = marginals(chains)[:, step_pairs(chains.num_steps)[0]]
    frames = []
    for window in windows:
        joint = data_masses(chains, window_weights(chains.num_steps, window))
        if num_pairs is not None:
            joint = sample_pairs(joint, num_pairs, rng)
        for lam in lams:
            q = pair_minimizer(joint, matched_background(joint), lam)
            estimates = {"direct": q}
            for name, hop in (("scaffolded", 1), ("widest_hops", window)):
                estimates[name] = chain_conditionals(q, chains.num_steps, hop)
            errors = {
                name: (occurs * total_variation(estimate, truth)).sum(-1)
                for name, estimate in estimates.items()
            }
            for distance in range(1, chains.num_steps):
                means = {name: e[:, distances == distance].mean(-1) for name, e in errors.items()}
                frame = pd.DataFrame({"chain": np.arange(len(q)), "distance": distance} | means)
                frames.append(frame.assign(lam=lam, window=window))
    return pd.concat(frames, ignore_index=True)


def learner_errors(curves: dict[str, pd.DataFrame]) -> dict[tuple[str, str], float]:
    """Largest error of a trained learner, lambda above 0, by the curves' name and ``pairs``."""
    worst = {}
    for name, frame in curves.items():
        last = frame[(frame["update"] == frame["update"].max()) & (frame["lam"] > 0)]
        worst |= {(name, pairs): part["error"].max() for pairs, part in last.groupby("pairs")}
    return worst


def gaps_by_window(gaps: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, float, pd.Series]:
    """How much chained hops of the window's width beat a direct question, by kind of chain.

    Three tables: the mean gap beyond the window (a row per kind, lambda and window, a column per
    chain), the largest gap within it in either direction, and every single gap beyond it.
    """
    frame = pd.concat([table.assign(kind=kind) for kind, table in gaps.items()], ignore_index=True)
    frame["gap"] = frame["direct"] - frame["widest_hops"]
    beyond = frame[frame["distance"] > frame["window"]]
    within = frame.loc[frame["distance"] <= frame["window"], "gap"].abs().max()
    cases = beyond.groupby(["kind", "lam", "window", "chain"])["gap"].mean().unstack("chain")
    return cases, within, beyond["gap"]


def bounded(error: float) -> str:
    """A small error for readers: its last digits are rounding and differ between machines."""
    return "less than 1e-6" if error < 1e-6 else f"{error:.1g}"
