"""Appendix A: closed forms by hand, learners against them, bounds on the real score functions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from lalp.errors import InputError
from lalp.paper.theory import margins, plots, theory
from lalp.scoring.equations import average_log_prob, local_average_log_prob
from tests.paper.verdict_cells import run_verdict_cells

NAN = math.nan
steady = settings(max_examples=80, deadline=None)
log_probs = st.floats(-9, 0, allow_nan=False)


@st.composite
def distributions(draw, count: int):
    """``count`` distributions over the same 2 to 6 letters; zeros are allowed."""
    letters = draw(st.integers(2, 6))
    weights = st.lists(st.integers(0, 20), min_size=letters, max_size=letters).filter(any)
    return [np.array(w) / sum(w) for w in (draw(weights) for _ in range(count))]


@pytest.fixture
def three_steps() -> theory.Chains:
    """Two letters, three steps, every number by hand."""
    transitions = [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.0, 1.0]]]
    return theory.Chains(np.array([[0.5, 0.5]]), np.array([transitions]))


@pytest.fixture
def adjacent(three_steps) -> tuple[np.ndarray, np.ndarray]:
    """What a learner of adjacent pairs is shown, and its matched background."""
    joint = theory.data_masses(three_steps, theory.window_weights(3, 1))
    return joint, theory.matched_background(joint)


# --- Prop. A.1 ----------------------------------------------------------------------------------


def test_mixture_risk_and_distance_by_hand():
    p, half = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert theory.mixture_minimizer(np.array([0.9, 0.1]), half, 1.0) == pytest.approx([0.7, 0.3])
    mixed = theory.mixture_minimizer(np.eye(3)[0], np.full(3, 1 / 3), 0.5)
    assert mixed == pytest.approx([7 / 9, 1 / 9, 1 / 9])
    assert theory.cross_entropy(p, half) == pytest.approx(math.log(2))
    assert theory.smoothed_cross_entropy(p, half, half, 2.0) == pytest.approx(3 * math.log(2))
    # At lambda = 0 only the data counts, and p itself is the best.
    assert theory.smoothed_cross_entropy(p, half, p, 0.0) == 0
    assert theory.smoothed_cross_entropy(p, half, p, 0.1) == math.inf
    a, b = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    assert theory.total_variation(a, b) == pytest.approx(0.3)
    assert theory.total_variation(p, 1 - p) == 1


@steady
@given(distributions(3), st.floats(0, 50, allow_subnormal=False))
def test_no_distribution_has_a_lower_risk(three, lam):
    p, u, q = three
    best = theory.mixture_minimizer(p, u, lam)
    risk = theory.smoothed_cross_entropy(p, u, np.stack([best, q]), lam)
    # What a rival loses is (1 + lambda) KL(best || rival).
    divergence = special.rel_entr(best, q).sum()
    assert risk[1] >= risk[0] - 1e-9
    assert risk[1] - risk[0] == pytest.approx((1 + lam) * divergence, abs=1e-9)


# --- chains -------------------------------------------------------------------------------------


def test_marginals_and_conditionals_equal_a_sum_over_all_paths():
    chains, same, other = (theory.random_chains(1, 5, 3, seed=seed) for seed in (2, 2, 3))
    assert (chains.initial == same.initial).all() and (chains.initial != other.initial).all()
    joint = np.zeros((3,) * 5)
    for path in itertools.product(range(3), repeat=5):
        links = enumerate(itertools.pairwise(path))
        steps = [chains.transitions[0, k, a, b] for k, (a, b) in links]
        joint[path] = chains.initial[0, path[0]] * math.prod(steps)
    conditionals = theory.pair_conditionals(chains)[0]
    for pair, (i, j) in enumerate(zip(*theory.step_pairs(5), strict=True)):
        both = joint.sum(axis=tuple({0, 1, 2, 3, 4} - {i, j}))
        assert conditionals[pair] == pytest.approx(both / both.sum(1, keepdims=True))
        marginals = np.stack([both.sum(1), both.sum(0)])
        assert theory.marginals(chains)[0, [i, j]] == pytest.approx(marginals)


def test_wide_hops_read_only_pairs_within_the_hop():
    chains = theory.random_chains(2, 6, 3, seed=1)
    truth, distances = theory.pair_conditionals(chains), theory.pair_distances(6)
    for hop in range(1, 6):
        seen = np.where((distances <= hop)[:, None, None], truth, NAN)
        assert theory.chain_conditionals(seen, 6, hop) == pytest.approx(truth)


def test_two_hops_by_hand():
    # Four steps: pair (0, 3) over hops of two is (0, 2) and then (2, 3).
    q = np.random.default_rng(0).dirichlet(np.ones(2), size=(6, 2))
    pairs = list(zip(*theory.step_pairs(4), strict=True))
    chained = dict(zip(pairs, theory.chain_conditionals(q, 4, hop=2), strict=True))
    of = dict(zip(pairs, q, strict=True))
    assert chained[0, 3] == pytest.approx(of[0, 2] @ of[2, 3])
    assert chained[1, 3] == pytest.approx(of[1, 3])


@pytest.mark.parametrize("num_permutations", [1, 3])
def test_balanced_chains_are_uniform_at_every_step(num_permutations):
    chains = theory.balanced_chains(3, 5, 4, num_permutations, seed=0)
    assert theory.marginals(chains) == pytest.approx(np.full((3, 5, 4), 0.25))
    assert chains.transitions.sum(axis=2) == pytest.approx(np.ones((3, 4, 4)))
    deterministic = np.minimum(chains.transitions, 1 - chains.transitions).max() < 1e-12
    assert deterministic == (num_permutations == 1)


# --- the risk over all contexts -----------------------------------------------------------------


def test_weights_and_masses_by_hand(three_steps):
    # Pairs (0,1) (0,2) (0,3) (1,2) (1,3) (2,3): all but (0,3) are within two steps.
    assert theory.window_weights(4, 2) == pytest.approx([0.2, 0.2, 0, 0.2, 0.2, 0.2])
    joint = theory.data_masses(three_steps, np.array([0.5, 0.0, 0.5]))[0]
    assert joint[0] == pytest.approx(np.array([[0.225, 0.025], [0.05, 0.2]]))
    assert joint[1] == pytest.approx(np.zeros((2, 2)))
    assert joint[2] == pytest.approx(np.array([[0.1375, 0.1375], [0.0, 0.225]]))
    assert theory.even_background(joint) == pytest.approx(np.full((3, 2), 1 / 6))


def test_minimizer_of_adjacent_and_unseen_pairs_by_hand(three_steps, adjacent):
    learned = theory.pair_minimizer(*adjacent, 0.25)[0]
    # (0.9 + 0.25 / 2) / 1.25
    assert learned[0, 0] == pytest.approx([0.82, 0.18])
    assert learned[1] == pytest.approx(np.full((2, 2), 0.5))
    assert learned[2, 1] == pytest.approx([0.1, 0.9])
    # Without background unseen pairs have no unique minimizer.
    learned = theory.pair_minimizer(*adjacent, 0.0)[0]
    assert np.isnan(learned[1]).all()
    assert learned[[0, 2]] == pytest.approx(three_steps.transitions[0])


def test_a_value_that_never_occurs_reverts_to_the_background_on_adjacent_pairs_too():
    chains = theory.Chains(np.array([[1.0, 0.0]]), np.array([[[[0.8, 0.2], [0.0, 1.0]]]]))
    expected = np.array([[0.65, 0.35], [0.5, 0.5]])
    joint = theory.data_masses(chains, theory.window_weights(2, 1))
    learned = theory.pair_minimizer(joint, theory.matched_background(joint), 1.0)
    assert learned[0, 0] == pytest.approx(expected)


@steady
@given(st.integers(0, 10**6), st.floats(0.01, 10), st.integers(1, 4), st.booleans())
def test_the_minimizer_is_the_mixture_context_by_context(seed, lam, window, even):
    chains = theory.random_chains(2, 5, 3, seed)
    joint = theory.data_masses(chains, theory.window_weights(5, window))
    background = (theory.even_background if even else theory.matched_background)(joint)
    learned = theory.pair_minimizer(joint, background, lam)
    assert learned.sum(-1) == pytest.approx(np.ones(learned.shape[:-1]))
    seen = theory.pair_distances(5) <= window
    truth = theory.pair_conditionals(chains)[:, seen]
    effective = lam * background[:, seen] / joint[:, seen].sum(-1)
    uniform = np.full(truth.shape, 1 / 3)
    assert learned[:, seen] == pytest.approx(theory.mixture_minimizer(truth, uniform, effective))
    assert learned[:, ~seen] == pytest.approx(np.full(learned[:, ~seen].shape, 1 / 3))


# --- learners -----------------------------------------------------------------------------------


def test_gradient_descent_finds_the_closed_form(adjacent):
    updates, learned = theory.train_learner(*adjacent, np.array([0.25]), num_updates=500)
    assert updates[0] == 0 and updates[-1] == 500
    assert learned.shape == (len(updates), 1, 3, 2, 2)
    assert learned[-1, 0, 0, 0] == pytest.approx([0.82, 0.18], abs=1e-4)
    assert learned[-1, 0, 1] == pytest.approx(np.full((2, 2), 0.5), abs=1e-4)


def test_learning_from_samples_is_noisy_seeded_and_leaves_torch_alone(adjacent):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    options = {"num_updates": 300, "batch_size": 256}
    a, b, c = (
        theory.train_learner(*adjacent, np.array([0.25]), seed=seed, **options)[1]
        for seed in (0, 0, 1)
    )
    assert (a == b).all() and not np.allclose(a[-1], c[-1])
    assert a[-1, 0, 0, 0] == pytest.approx([0.82, 0.18], abs=0.05)
    assert torch.get_num_threads() == threads
    assert (torch.random.get_rng_state() == state).all()


def test_learning_curves_fall_but_for_unseen_pairs_without_background():
    chains = theory.random_chains(2, 4, 3, seed=0)
    table = theory.learning_curves(chains, [0.0, 0.5], num_updates=400)
    assert set(table["pairs"]) == {"adjacent", "never seen"} and set(table["chain"]) == {0, 1}
    last = table[table["update"] == 400].groupby(["lam", "pairs"])["error"].max()
    first = table[table["update"] == 0].groupby(["lam", "pairs"])["error"].min()
    assert (first > 0.05).all()
    assert last.drop((0.0, "never seen")).max() < 0.01 < last[0.0, "never seen"]


def test_learners_of_wider_windows_meet_the_closed_form():
    chains = theory.random_chains(2, 4, 3, seed=0)
    table = theory.window_learner_errors(chains, [0.2, 2.0], [1, 3], num_updates=500, seed=0)
    assert table[["lam", "window"]].to_numpy().tolist() == [[0.2, 1], [0.2, 3], [2, 1], [2, 3]]
    assert table["error"].max() < 1e-3


def test_learned_weights_follow_the_formula():
    chains = theory.random_chains(2, 4, 3, seed=0)
    weights = np.array([4.0, 1.0, 0.0, 4.0, 1.0, 4.0]) / 14
    table = theory.learned_weights(chains, weights, [0.3, 3.0], num_updates=500, seed=0)
    assert len(table) == 2 * 2 * 6 * 3
    expected = (table["ratio"] / (1 + table["ratio"])).to_numpy()
    assert table["closed"].to_numpy() == pytest.approx(expected)
    assert table["learned"].to_numpy() == pytest.approx(expected, abs=1e-3)
    assert (table.loc[table["distance"] == 3, "ratio"] == 0).all()


# --- the reasoning gap --------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_gap_of_a_deterministic_chain_by_hand(lam):
    chains = theory.balanced_chains(3, 5, 4, num_permutations=1, seed=0)
    table = theory.reasoning_gap(chains, [lam], [1, 2])
    alpha, distance, window = 1 / (1 + lam), table["distance"], table["window"]
    # Four letters, one of them true: u is 3/4 away. Each hop keeps the truth with weight alpha.
    expected = {
        "direct": np.where(distance <= window, 1 - alpha, 1) * 0.75,
        "scaffolded": (1 - alpha**distance) * 0.75,
        "widest_hops": (1 - alpha ** np.ceil(distance / window)) * 0.75,
    }
    for name, errors in expected.items():
        assert table[name].to_numpy() == pytest.approx(np.asarray(errors))


def test_chaining_can_be_worse_in_a_single_context():
    # From the first letter two steps lead exactly to u, which the direct estimate says.
    links = np.array([[[[0.6, 0.4], [0.35, 0.65]]] * 2])
    chains = theory.Chains(np.array([[1.0, 0.0]]), links)
    far = theory.reasoning_gap(chains, [1.0], [1]).iloc[-1]
    assert far["direct"] == pytest.approx(0) and far["scaffolded"] > 0.005


def test_a_large_sample_nears_unlimited_data():
    chains = theory.random_chains(20, 4, 2, seed=0)
    exact, few, many = (
        theory.reasoning_gap(chains, [0.1], [3], num_pairs=n, seed=0)["direct"].mean()
        for n in (None, 100, 1_000_000)
    )
    assert few > many + 0.02 and many == pytest.approx(exact, abs=0.005)


# --- bounds -------------------------------------------------------------------------------------


def test_bounds_by_hand():
    # Nine style tokens of 0.1 against one logic token of 0.8.
    assert margins.galp_margin_bound(10, 1, 0.1, 0.8) == pytest.approx(0.01)
    assert margins.galp_margin_bound(10, 0, 0.1, 0.8) == pytest.approx(0.1)
    assert margins.galp_margin_bound(10, 10, 0.1, 0.8) == pytest.approx(-0.8)
    assert margins.fluency_boundary(0.1, 0.8) == pytest.approx(1 / 9)
    assert margins.fluency_boundary(0.0, 0.8) == 0 and margins.fluency_boundary(0.1, 0.0) == 1
    assert margins.lalp_margin_bound(5, 2.0) == pytest.approx(0.4)
    assert margins.lalp_margin_bound(5, 2.0, 0.3) == pytest.approx(0.16)
    assert margins.lalp_margin_bound(5, 2.0, 0.5) == pytest.approx(0)
    assert margins.lalp_margin_bound(1, 2.0, 9.0) == pytest.approx(2.0)


@steady
@given(st.lists(st.tuples(log_probs, log_probs, st.booleans()), min_size=1, max_size=30))
def test_galp_of_any_pair_obeys_its_own_bound(tokens):
    """The constants are read off the responses, whatever they are, where they exist."""
    right, wrong, logic = (np.array(column) for column in zip(*tokens, strict=True))
    logic = logic.astype(bool)
    eps = (wrong - right)[~logic].min(initial=math.inf)
    delta = (right - wrong)[logic].max(initial=0.0)
    if eps < 0 or delta < 0:
        return
    eps = 0.0 if logic.all() else eps
    bound = margins.galp_margin_bound(len(tokens), int(logic.sum()), eps, delta)
    assert average_log_prob(wrong) - average_log_prob(right) >= bound - 1e-9


steps = st.lists(
    st.lists(st.tuples(log_probs, log_probs), min_size=1, max_size=5), min_size=1, max_size=8
)


@steady
@given(steps, st.data())
def test_lalp_of_any_pair_obeys_its_own_bound(pairs, data):
    right, wrong = ([np.array(step)[:, side] for step in pairs] for side in (0, 1))
    each = np.array([r.mean() - w.mean() for r, w in zip(right, wrong, strict=True)])
    fatal = data.draw(st.integers(0, len(pairs) - 1))
    delta = np.abs(np.delete(each, fatal)).max(initial=0.0)
    if each[fatal] < 0:
        return
    bound = margins.lalp_margin_bound(len(pairs), each[fatal], delta)
    assert local_average_log_prob(right) - local_average_log_prob(wrong) >= bound - 1e-9


def test_random_instances_of_the_fluency_trap():
    table = margins.check_fluency_trap(2_000, seed=1)
    excess = table["margin"] - table["bound"]
    tight = table["premise"] == "equality"
    assert tight.sum() == 1_000 and excess[tight].abs().max() < 1e-9
    assert excess.min() > -1e-9 and excess[~tight].median() > 0.1
    share = table["num_logic"] / table["num_tokens"]
    below = share < margins.fluency_boundary(table["eps"], table["delta"])
    assert ((table["margin"] > 0) == below)[tight].all()
    # Sufficient, not necessary: with slack GALP is wrong above the boundary as well.
    assert (table["margin"] > 0)[below].all() and (table["margin"] > 0)[~below & ~tight].any()
    assert share.min() == 0 and share.max() == 1


def test_random_instances_of_the_fatal_step():
    table = margins.check_fatal_step(3_000, seed=1)
    excess = (table["margin"] - table["bound"]).groupby(table["premise"])
    assert excess.size().to_dict() == {"equal steps": 1000, "equality": 1000, "slack": 1000}
    assert excess.min().min() > -1e-9
    assert excess.max()[["equal steps", "equality"]].max() < 1e-9 < excess.max()["slack"]
    assert (table.loc[table["premise"] == "equal steps", "delta"] == 0).all()
    assert table["num_steps"].min() == 1


@pytest.mark.parametrize("logic_length", [2, 4, 9])
def test_each_score_turns_right_at_its_boundary(logic_length):
    lengths = np.array([logic_length, 6, 4])
    table = margins.margin_boundaries(3).set_index("relative_length")
    row = table.iloc[table.index.get_indexer([logic_length / lengths.mean()], "nearest")[0]]
    scores = {
        "galp": lambda steps: average_log_prob(np.concatenate(steps)),
        "lalp": local_average_log_prob,
    }
    for name, score in scores.items():
        for factor in (0.9, 1.1):
            favour = (factor * row[name], -1.0, -1.0)
            right = [np.full(n, one - 9) for n, one in zip(lengths, favour, strict=True)]
            assert (score(right) > score([np.full(n, -9.0) for n in lengths])) == (factor > 1)
    assert margins.margin_boundaries(2)["galp"].min() == pytest.approx(0)


def test_dilution_at_a_random_token_is_one_on_average():
    table = margins.sample_dilution(4_000, seed=0)
    assert table["num_steps"].between(2, 100).all()
    assert table["any_token"].mean() == pytest.approx(1, abs=0.05)
    assert table["any_step"].mean() > 1.2


# --- bad input ----------------------------------------------------------------------------------

HALF = np.array([0.5, 0.5])
ONE_LINK = np.full((1, 1, 2, 2), 0.5)
CHAINS = theory.random_chains(1, 3, 2, seed=0)
JOINT = theory.data_masses(CHAINS, theory.window_weights(3, 1))
LEARNER = {"joint": JOINT, "background": theory.even_background(JOINT), "lam": np.ones(1)}
TRAINED = LEARNER | {"num_updates": 1}
SHAPE = {"num_chains": 1, "num_steps": 3, "num_letters": 2, "seed": 0}
SEEDED = {"num_instances": 5, "seed": 0}
GAP = {"chains": CHAINS, "lams": [0.1], "windows": [1]}
TOKENS = {"num_tokens": 3, "num_logic": 1, "eps": 0.1, "delta": 0.1}
MIXTURE = {"p": HALF, "u": HALF, "lam": 1}


@pytest.mark.parametrize(
    ("call", "valid", "refused"),
    [
        (theory.mixture_minimizer, MIXTURE, {"lam": NAN}),
        (theory.smoothed_cross_entropy, MIXTURE | {"q": HALF}, {"lam": -1}),
        (theory.check_minimizer, SEEDED | {"num_others": 2}, {"num_others": 1}),
        (theory.random_chains, SHAPE, {"num_chains": 0, "num_steps": 1, "num_letters": 1}),
        (theory.balanced_chains, SHAPE | {"num_permutations": 1}, {"num_permutations": 0}),
        (theory.pair_minimizer, LEARNER, {"lam": -1.0, "joint": -JOINT}),
        (theory.train_learner, TRAINED, {"lam": -np.ones(1), "num_updates": 0, "batch_size": 0}),
        (theory.chain_conditionals, {"q": JOINT, "num_steps": 3, "hop": 1}, {"hop": 0}),
        (theory.reasoning_gap, GAP, {"num_pairs": 0}),
        (margins.galp_margin_bound, TOKENS, {"num_tokens": 0, "num_logic": -1, "eps": -0.1}),
        (margins.lalp_margin_bound, {"num_steps": 3, "gamma": 1}, {"num_steps": 0, "gamma": -1}),
        (margins.margin_boundaries, {"num_steps": 2}, {"num_steps": 1}),
        (margins.sample_dilution, SEEDED, {"max_steps": 1}),
        (margins.check_fluency_trap, SEEDED, {"num_instances": 0}),
        (margins.check_fatal_step, SEEDED, {"num_instances": 0}),
    ],
)
def test_numbers_out_of_range_are_refused(call, valid, refused):
    call(**valid)
    for name, value in refused.items():
        with pytest.raises(InputError, match=rf"^{name} must be finite and at least \d, not "):
            call(**valid | {name: value})


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (theory.mixture_minimizer, (np.array([0.5, 0.6]), HALF, 1), "p: .* sum to 1.1"),
        (theory.mixture_minimizer, (HALF, np.array([1.5, -0.5]), 1), "u: .*negative"),
        (theory.mixture_minimizer, (HALF, np.array([NAN, 1]), 1), "u: .*non-finite"),
        (theory.mixture_minimizer, (HALF, np.full(3, 1 / 3), 1), "2 letters, u 3"),
        (theory.mixture_minimizer, (np.array([]), HALF, 1), "p: needs"),
        (theory.Chains, (HALF[None], np.full((1, 1, 3, 2), 0.5)), "do not fit"),
        (theory.Chains, (HALF[None], np.full((2, 1, 2, 2), 0.5)), "do not fit"),
        (theory.Chains, (HALF[None], ONE_LINK[0]), "transitions chain, link"),
        (theory.Chains, (HALF[None], 0.8 * ONE_LINK), "sum to 0.8"),
        (theory.Chains, (HALF, ONE_LINK), "initial needs the axes"),
        (theory.window_weights, (4, 4), "choose 1 to 3"),
        (theory.window_weights, (4, 0), "choose 1 to 3"),
        (theory.data_masses, (CHAINS, HALF), "3 pairs: give one per pair"),
        (theory.data_masses, (CHAINS, np.ones(3)), "weights: .* sum to 3"),
        (theory.reasoning_gap, (CHAINS, [0.1, 0.0], [1]), "lambda must be above 0"),
        (margins.galp_margin_bound, (3, 4, 0.1, 0.1), "more logic tokens"),
        (margins.fluency_boundary, (0.0, 0.0), "no boundary"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


# --- verdicts and figures -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checks() -> dict:
    """All that the notebook computes, in small."""
    chains = theory.random_chains(6, 4, 3, seed=0)
    still = theory.balanced_chains(6, 4, 3, num_permutations=1, seed=0)
    sampled = {"num_updates": 800, "batch_size": 1_024}
    return {
        "minimizer": theory.check_minimizer(50, 10, seed=0),
        "curves": {
            "exact risk": theory.learning_curves(chains, [0.0, 0.5], num_updates=500),
            "sampled pairs": theory.learning_curves(chains, [0.0, 0.5], **sampled),
        },
        "shares": theory.learned_weights(
            chains, theory.window_weights(4, 2), [0.5, 5.0], num_updates=500, seed=0
        ),
        "gaps": {
            kind: theory.reasoning_gap(chain, [0.1], [1, 2, 3])
            for kind, chain in {"random": chains, "deterministic": still}.items()
        },
        "trap": margins.check_fluency_trap(400, seed=0),
        "fatal": margins.check_fatal_step(600, seed=0),
        "dilution": margins.sample_dilution(2_000, seed=0),
    }


def verdicts(checks: dict, **changed) -> list[str]:
    found = run_verdict_cells("07_theory", **checks | changed)
    assert all(verdict.where.startswith("App. A") for verdict in found)
    return [verdict.verdict for verdict in found]


@pytest.mark.parametrize(
    ("place", "part", "column", "change"),
    [
        (6, "trap", "margin", 0.0),
        (0, "minimizer", "smallest_excess", -1.0),
        (0, "minimizer", "identity_error", 1e-6),
        (1, "shares", "learned", 0.01),
        (1, "exact risk", "error", 0.002),
        (1, "sampled pairs", "error", 0.05),
        (3, "trap", "margin", -99.0),
        (5, "fatal", "margin", -99.0),
    ],
)
def test_one_instance_is_enough_against_a_theorem(checks, place, part, column, change):
    frame = (checks | checks["curves"])[part].copy()
    # The last row is off.
    frame.loc[frame.index[-1], column] += change
    changed = {part: frame}
    if part in checks["curves"]:
        changed = {"curves": checks["curves"] | changed}
    expected = ["holds"] * 6 + ["does not hold"]
    expected[place] = "does not hold"
    assert verdicts(checks, **changed) == expected


def test_equal_steps_must_be_exact(checks):
    fatal = checks["fatal"].copy()
    fatal.loc[fatal["premise"] == "equal steps", "margin"] += 1e-6
    assert verdicts(checks, fatal=fatal)[4] == "does not hold"


def test_a_gap_that_is_not_there_is_told(checks):
    gap = checks["gaps"]["random"]
    turned = gap.assign(direct=gap["widest_hops"], widest_hops=gap["direct"])
    assert verdicts(checks, gaps={"random": turned})[2] == "does not hold"
    none = gap.assign(direct=gap["widest_hops"])
    assert verdicts(checks, gaps={"random": none})[2] == "not resolved"


def test_dilution_verdict_needs_both_ways_of_drawing(checks):
    table = checks["dilution"]
    assert verdicts(checks, dilution=table.assign(any_token=5.0, any_step=5.0))[6] == "holds"
    assert verdicts(checks, dilution=table.assign(any_step=5.0))[6] == "not resolved"


def test_figures_have_labelled_panels(checks):
    gap = checks["gaps"]["random"]
    figures = [
        plots.plot_learning_curves(checks["curves"]),
        plots.plot_learned_weights(checks["shares"]),
        plots.plot_gap_by_distance(dict.fromkeys("abcd", gap[gap["window"] == 1])),
        plots.plot_gap_by_window(dict.fromkeys("abcdef", gap)),
        plots.plot_fluency_trap(checks["trap"]),
        plots.plot_fatal_step(margins.margin_boundaries(20), checks["dilution"]),
    ]
    assert [len(figure.axes) for figure in figures] == [2, 1, 4, 6, 2, 2]
    assert all(axis.lines for figure in figures for axis in figure.axes)
    assert all(axis.get_xlabel() for figure in figures[4:] for axis in figure.axes)
    plots.plt.close("all")
