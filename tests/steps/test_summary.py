"""What a pool's steps look like before anything is scored."""

from lalp.pools.reading import load_pool
from lalp.steps.summary import step_summary, unknown_scripts


def pool_of(*texts):
    record = {"prompt": "3 + 4?", "teacher": "Ada"}
    return load_pool([record | {"prompt_id": f"p{n}", "response": t} for n, t in enumerate(texts)])


def test_steps_are_counted_and_measured():
    assert step_summary(pool_of("One. Two.\n\nThree is 3.", "One only", "So. Yes.  ")) == {
        "num_responses": 3,
        "num_one_step": 1,
        "steps_per_response": {"min": 1, "p5": 1, "median": 2, "p95": 3, "max": 3},
        "characters_per_step": {"min": 3, "p5": 3, "median": 4, "p95": 11, "max": 11},
        "unknown_scripts": {},
    }


def test_a_large_pool_is_seen_by_a_thousand_responses():
    pool = pool_of(*["One. Two."] * 600, *["One."] * 600)
    summary = step_summary(pool)
    assert summary["num_responses"] == 1000
    assert 450 < summary["num_one_step"] < 550
    assert step_summary(pool) == summary


def test_scripts_without_a_known_end_of_sentences():
    texts = ["ดังนั้น x = 5", "ສະນັ້ນ ดังนั้น", "So ∀x ∈ ℝ, 𝑥 ≥ α, ﬁne, ｘ", "所以で그런Даहाँنعم", "5 + 5"]
    assert [unknown_scripts(text) for text in texts] == [["Thai"], ["Lao", "Thai"], [], [], []]
    assert step_summary(pool_of(*texts))["unknown_scripts"] == {"Thai": 2, "Lao": 1}
    # A quoted word is not the language of a response.
    assert unknown_scripts("The Thai word for five, written as ห้า, is a noun as well.") == []
