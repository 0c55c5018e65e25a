"""CHAMP: reading, references, grading, the pool, and picking from it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.grading import workers
from lalp.grading.equivalence import split_values
from lalp.paper.champ import champ
from lalp.paper.champ.champ import (
    PARTIAL_SETTINGS,
    SETTINGS,
    build_champ_pool,
    champ_pool,
    grade_champ,
    load_champ_attempts,
    looks_finished,
    num_factors,
    pick_candidates,
    reference_expressions,
    teacher_accuracy,
)
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from tests.paper.verdict_cells import run_verdict_cells

GPT, PALM, OTHER = "GPT-4", "PaLM 2 Medium", "GPT-3.5"


def _turn(role: str, text: str | None, error: str | None = None) -> dict:
    return {"role": role, "text": text, "error": error}


def _talk(solution: str | None, final: str | None, error: str | None = None, before="") -> dict:
    """A conversation: turns that explain concepts, problem, solution, final sentence."""
    late = "LENGTH_PREVIOUS" if error else None
    turns = [_turn("User", "Solve this."), _turn("Model.x", solution, error)]
    turns += [_turn("User", "Sum up."), _turn("Model.x", final, late)]
    return {"messages": [_turn("System", "You are good at sums."), *BEFORE.get(before, ()), *turns]}


BEFORE = {
    "concept": (_turn("User", "What is a square?"), _turn("Model.x", "A number times itself.")),
    "examples": (_turn("User", "1+1?"), _turn("Imputation", "It is 2.")),
}


def _problem(text: str, answer: str, talks: dict[str, dict]) -> dict:
    return {"_text": text, "_answer": answer, "category": "Sums", "conversations": talks}


def _load(name: str) -> dict:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


PROBLEMS, OUTCOMES = {}, []
for name, problem in _load("problems.yaml").items():
    talks = {}
    for key, (solution, final, outcome, extracted, *more) in problem["attempts"].items():
        talks[key] = _talk(solution, final, **(more[0] if more else {}))
        OUTCOMES.append(((name, *key.split("|")), outcome, extracted))
    PROBLEMS[name] = _problem(problem["text"], problem["answer"], talks)
ODD, SUM = "What is the sum of the first 4 odd numbers?", "They add up to 4^2 = 16."


@pytest.fixture(scope="module")
def fake_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("champ") / "v0.json"
    path.write_text(json.dumps({"problems": PROBLEMS}))
    return path


@pytest.fixture(scope="module")
def graded(fake_path, tmp_path_factory):
    return grade_champ(load_champ_attempts(fake_path), tmp_path_factory.mktemp("cache"))


def _row(frame: pd.DataFrame, *key: str) -> pd.Series:
    """The one row of this prompt, teacher and setting."""
    return frame.set_index(["prompt_id", "teacher", "setting"], verify_integrity=True).loc[key]


# ------------------------------------------------------------------------------------- reading


def test_attempts_hold_the_solution_and_not_the_explained_concept(fake_path):
    attempts = load_champ_attempts(fake_path)
    assert len(attempts) == 18
    row = _row(attempts, "P_Odd_1", GPT, "Name C w/o H")
    assert (row["response"], row["final_answer"]) == ("A square: 16.", "It is 4^2.")
    row = _row(attempts, "P_Odd_1", GPT, "5-Shot")
    assert (row["response"], row["prompt"], row["category"]) == ("1+3+5+7 = 16.", ODD, "Sums")
    assert pd.isna(row["reason_unusable"])


def test_a_conversation_without_solution_and_answer_is_unusable(tmp_path):
    talks = {"GPT-4|0-Shot": [], "GPT-4|5-Shot": [_turn("Model.x", "3")]}
    talks = {key: {"messages": messages} for key, messages in talks.items()}
    (tmp_path / "v0.json").write_text(json.dumps({"problems": {"P": _problem("?", "3", talks)}}))
    reasons = load_champ_attempts(tmp_path / "v0.json")["reason_unusable"]
    assert set(reasons) == {"the conversation has no solution and answer"}


NO_BAR = json.dumps({"problems": {"P": _problem("?", "3", {"no bar": {}})}})


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"problems": {}}', '{"problems": {"P": {}}}', NO_BAR]
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "v0.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"v0\.json: not CHAMP's v0\.json"):
        load_champ_attempts(path)


@pytest.mark.parametrize(
    ("text", "ending"),
    [(text, ending) for ending, texts in _load("endings.yaml").items() for text in texts],
)
def test_looks_finished(text, ending):
    assert looks_finished(text) is (ending == "finished")


# ------------------------------------------------------------------------------------- grading


@pytest.mark.parametrize(("answer", "expressions"), _load("references.yaml").items())
def test_reference_expressions(answer, expressions):
    assert reference_expressions(answer) == tuple(expressions)


@pytest.mark.parametrize(
    ("product", "count"),
    [
        *(("(x-1)(x+1)", 2), (r"\left(x-1\right) \cdot (x+1)*(x^2+1)", 3), ("", 0)),
        *(("x^2 - 1 = (x-1)(x+1)", 2), ("[x(y+1)](z-1)", 2), ("(x-1)(x+1) + 3", 0), ("x^2-1", 0)),
    ],
)
def test_num_factors(product, count):
    assert num_factors(product) == count


@pytest.mark.parametrize(("key", "outcome", "extracted"), OUTCOMES)
def test_outcomes(graded, key, outcome, extracted):
    row = _row(graded, *key)
    assert (row["outcome"], row["correct"]) == (outcome, outcome == "correct")
    assert pd.isna(row["extracted"]) if extracted is None else row["extracted"] == extracted


def test_teacher_accuracy_counts_what_cannot_be_read_as_not_correct(graded):
    table = teacher_accuracy(graded).set_index(["teacher", "settings"])
    row = table.loc[(OTHER, "all")]
    assert row[["attempts", "usable", "gradable", "correct"]].tolist() == [4, 3, 4, 1]
    assert row["accuracy"] == 0.25
    # GPT-4 at 0-Shot: 2 of 3 (the yes/no problem is not gradable). Wilson, z = 1.959964: centre
    # (2 + z^2/2) / (3 + z^2) = 0.5731, half width z sqrt(2/9 * 3 + z^2/4) / (3 + z^2) = 0.3654.
    row = table.loc[(GPT, "0-Shot")]
    assert row[["attempts", "gradable", "correct"]].tolist() == [4, 3, 2]
    assert row["low"] == pytest.approx(0.2077, abs=2e-4)
    assert row["high"] == pytest.approx(0.9385, abs=2e-4)


def test_teacher_accuracy_without_gradable_attempts(graded):
    table = teacher_accuracy(graded[graded["prompt_id"] == "P_Prime_1"])
    assert table["accuracy"].isna().all() and (table["gradable"] == 0).all()


# ---------------------------------------------------------------------------------------- pool


def test_pool_holds_correct_responses_of_problems_with_two_teachers(graded):
    pool = build_champ_pool(graded)
    prompt = Prompt("P_Odd_1", (Message("user", ODD),), "4^2, or equivalently 16")
    assert pool.prompts == {"P_Odd_1": prompt}
    places = ["GPT-4/0-Shot", "GPT-4/5-Shot", "GPT-4/Name C w/o H", "PaLM 2 Medium/0-Shot"]
    assert [r.response_id for r in pool.responses] == [f"P_Odd_1/{place}" for place in places]
    extra = {"setting": "0-Shot", "category": "Sums"}
    first = Response("P_Odd_1/GPT-4/0-Shot", "P_Odd_1", GPT, SUM, True, extra)
    assert pool.responses[0] == first
    # Every attempt outside the pool is counted.
    assert pool.left_out == {
        "the teacher gave the same text in another setting": 1,
        "the teacher was given a part of the solution": 1,
        "the solution breaks off": 1,
        "the solution or its answer is empty": 2,
        "the solution was cut off at the teacher's length limit": 1,
        "the final sentence does not state one readable answer": 1,
        "the answer is wrong": 3,
        "the reference is not a mathematical expression": 2,
        "fewer than two teachers solved the problem": 2,
    }
    assert len(pool.responses) + sum(pool.left_out.values()) == len(graded)


def _graded(rows: list[tuple], **columns: str) -> pd.DataFrame:
    """Graded attempts of (problem, teacher, setting, outcome, solution)."""
    names = ["prompt_id", "teacher", "setting", "outcome", "response"]
    facts = {"prompt": "?", "category": "c", "answer": "3", "extracted": "3"} | columns
    return pd.DataFrame(rows, columns=names).assign(reason_unusable="why", **facts)


@pytest.mark.parametrize(
    ("extracted", "answer", "response", "kept"),
    [
        ("1,250", "1250", "So it is 1250.", True),
        ("1250", "1250", r"Hence $1{,}250$.", True),
        ("n = 44", "44", "Twice 22 is 44.", True),
        ("44", "44", "Hence it is 244, or 440.", False),
        ("44", "44", "Hence it is 45.", False),
        ("9", "9", "Nine.", True),
        ("100", "100 (i.e., all values)", "It holds for every n.", True),
        ("2^n", "2^n", "Two choices for each.", True),
    ],
)
def test_solutions_that_contradict_their_summary_are_left_out(extracted, answer, response, kept):
    texts = {GPT: response, PALM: "1250, 44, 9", OTHER: "44 1250 9"}
    rows = [("P", teacher, "0-Shot", "correct", text) for teacher, text in texts.items()]
    pool = build_champ_pool(_graded(rows, extracted=extracted, answer=answer))
    reason = "the solution never mentions the number that its summary states"
    assert pool.left_out == ({} if kept else {reason: 1})
    assert {r.teacher for r in pool.responses} == {PALM, OTHER} | ({GPT} if kept else set())


OUTCOMES = ["correct", "wrong", "no answer", "timeout", "error", "not gradable", "unusable"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["P1", "P2", "P3"]),
            st.sampled_from([GPT, PALM, OTHER]),
            st.sampled_from([*SETTINGS[:3], *PARTIAL_SETTINGS, "Unheard of"]),
            st.sampled_from(OUTCOMES),
            st.sampled_from(["one text", "another"]),
        ),
        unique_by=lambda attempt: attempt[:3],
        max_size=40,
    )
)
def test_pool_invariants(attempts):
    frame = _graded(attempts)
    pool = build_champ_pool(frame)
    assert len(pool.responses) + sum(pool.left_out.values()) == len(frame)
    assert all(count > 0 for count in pool.left_out.values())
    ids = [response.response_id for response in pool.responses]
    texts = [(r.prompt_id, r.teacher, r.text) for r in pool.responses]
    assert len(set(ids)) == len(ids) and len(set(texts)) == len(texts)
    good = frame[(frame["outcome"] == "correct") & ~frame["setting"].isin(PARTIAL_SETTINGS)]
    solved = good.groupby("prompt_id")["teacher"].agg(set)
    # The same texts by the same teacher apart, all that is good is there.
    assert set(pool.prompts) == {name for name, teachers in solved.items() if len(teachers) > 1}
    for prompt_id in pool.prompts:
        found = {r.teacher for r in pool.responses if r.prompt_id == prompt_id}
        assert found == solved[prompt_id]


def test_champ_pool_is_written_once_and_follows_the_data(fake_path, tmp_path, monkeypatch):
    path, cache = tmp_path / "v0.json", tmp_path / "cache"
    path.write_text(fake_path.read_text())
    monkeypatch.setattr(champ, "locate", lambda asset: path)
    pool, graded = champ_pool(cache)
    assert load_pool(cache / "champ_pool.jsonl").responses == pool.responses
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert set(before) == {"champ_pool.jsonl", "champ_grades.jsonl"}
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_worker_command", lambda limit: ["/nonexistent"])
        again, graded_again = champ_pool(cache)
    assert again == pool
    pd.testing.assert_frame_equal(graded_again, graded)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    path.write_text(path.read_text().replace("It is 4^2.", "It is 17."))
    changed, _ = champ_pool(cache)
    assert len(changed.responses) == len(pool.responses) - 1
    assert load_pool(cache / "champ_pool.jsonl").responses == changed.responses


# ------------------------------------------------------------------------------------- picking


def _pool(teachers_per_prompt: dict[str, dict[str, list[str]]]) -> Pool:
    """A pool from prompt -> teacher -> settings."""
    responses = tuple(
        Response(f"{prompt}/{teacher}/{setting}", prompt, teacher, "t", True, {"setting": setting})
        for prompt, teachers in teachers_per_prompt.items()
        for teacher, settings in teachers.items()
        for setting in settings
    )
    prompts = {key: Prompt(key, (Message("user", key),)) for key in teachers_per_prompt}
    return Pool(prompts, responses, {"the answer is wrong": 5})


SMALL = _pool(
    {
        "two": {"A": ["5-Shot", "0-Shot"], "B": ["Root C w/ H"]},
        "three": {"A": ["0-Shot"], "B": ["No C w/ H", "own setting", "5-Shot"], "C": ["0-Shot"]},
        "also two": {"B": ["0-Shot"], "C": ["0-Shot"]},
    }
)


def test_picks_the_prompts_with_most_teachers_and_the_preferred_setting():
    picked = pick_candidates(SMALL, num_prompts=1)
    assert list(picked.prompts) == ["three"]
    ids = [response.response_id for response in picked.responses]
    assert ids == ["three/A/0-Shot", "three/B/5-Shot", "three/C/0-Shot"]
    more = {"prompt not picked": 5, "beyond 1 per teacher and prompt": 2}
    assert picked.left_out == {"the answer is wrong": 5} | more


def test_picks_more_per_teacher_in_pool_order():
    picked = pick_candidates(SMALL, num_prompts=9, per_teacher=2)
    ids = ["two/B/Root C w/ H", "three/B/No C w/ H", "three/B/5-Shot", "also two/B/0-Shot"]
    assert [r.response_id for r in picked.responses if r.teacher == "B"] == ids
    assert picked.left_out == {"the answer is wrong": 5, "beyond 2 per teacher and prompt": 1}


def test_the_seed_decides_among_equals_only():
    equals = _pool({f"P{k}": {"A": ["0-Shot"], "B": ["0-Shot"]} for k in range(30)})
    picks = [tuple(pick_candidates(equals, 10, seed=seed).prompts) for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert list(picks[0]) == sorted(picks[0], key=list(equals.prompts).index)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (-3, 1)])
def test_nothing_to_pick_is_refused(numbers):
    with pytest.raises(InputError, match="give at least 1"):
        pick_candidates(SMALL, *numbers)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_picking_loses_nothing_silently(num_prompts, per_teacher, seed):
    picked = pick_candidates(SMALL, num_prompts, per_teacher, seed)
    assert len(picked.responses) + sum(picked.left_out.values()) == len(SMALL.responses) + 5
    assert {response.prompt_id for response in picked.responses} == set(picked.prompts)
    assert len(picked.prompts) == min(num_prompts, 3)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([400, 700], ["holds"]),
        ([400, 600], ["does not hold"]),
    ],
)
def test_verdicts_on_the_pool(medians, expected):
    lengths = pd.DataFrame({"teacher": ["A", "B"], "num_tokens": medians})
    found = run_verdict_cells("00_pool", lengths=lengths, medians=lengths.set_index("teacher"))
    assert [verdict.verdict for verdict in found] == expected
    assert found[0].run == f"median tokens per response {medians[0]} to {medians[1]}"


@pytest.mark.skipif(find_spec("champ_dataset") is None, reason="champ_dataset is not installed")
def test_packaged_champ_has_the_expected_structure():
    attempts = load_champ_attempts()
    assert len(attempts) == 19_440
    assert attempts.groupby(["teacher", "setting"]).size().eq(270).all()
    assert set(attempts["setting"]) == {*SETTINGS, *PARTIAL_SETTINGS}
    assert set(attempts["teacher"]) == {"GPT-3.5", "GPT-4", "GPT-4 Turbo", PALM}
    usable = attempts[attempts["reason_unusable"].isna()]
    assert usable[["response", "final_answer"]].notna().all(axis=None)
    assert attempts["reason_unusable"].value_counts().to_dict() == {
        "the solution breaks off": 501,
        "the solution was cut off at the teacher's length limit": 261,
    }
    # Concepts explained before the solution are not the solution, and the final sentence is short.
    assert usable["final_answer"].str.len().median() < 150 < usable["response"].str.len().median()
    references = attempts.drop_duplicates("prompt_id")["answer"].map(reference_expressions)
    assert references.map(bool).sum() == 210
    assert all(split_values(gold) for golds in references for gold in golds)
