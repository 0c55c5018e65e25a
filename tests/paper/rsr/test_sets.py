"""The sets: their layout on the hub and in a folder, and what is drawn of them."""

from __future__ import annotations

import json
import shutil

import pytest

from lalp.errors import InputError
from lalp.paper.rsr import sets
from lalp.paper.rsr.dryrun import write_sets
from lalp.paper.rsr.plan import PLAN, find_plan
from lalp.paper.rsr.sets import find_sets, load_sets

SMALL = find_plan("toys")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All 33 made-up sets."""
    folder = tmp_path_factory.mktemp("sets")
    write_sets(SMALL, folder)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSR", raising=False)


def test_every_set_gives_as_many_traces_of_the_same_problems(made):
    pool, digests = load_sets(SMALL, made)
    assert len(digests) == 33 and len(pool.responses) == 66
    drawn = {(r.teacher, r.extra["generation"]): set() for r in pool.responses}
    for response in pool.responses:
        drawn[response.teacher, response.extra["generation"]].add(response.prompt_id)
    assert list(dict.fromkeys(teacher for teacher, _ in drawn)) == list(PLAN.teachers)
    for generation in PLAN.generations:
        problems = {frozenset(drawn[teacher, generation]) for teacher in PLAN.teachers}
        assert len(problems) == 1 and len(*problems) == 2


def test_a_trace_is_read_as_it_stands(made):
    pool, _ = load_sets(SMALL, made)
    response = next(r for r in pool.responses if r.teacher == "QwQ-32B")
    system, user = pool.prompts[response.prompt_id].messages
    assert (
        system.content == "Please reason step by step, and put your final answer within \\boxed{}."
    )
    assert user.content.startswith("What is ")
    assert response.text.startswith("<think>\n") and "</think>\n\nThe sum is" in response.text
    file = made / "qwq-32b" / f"short-sys_5k_{response.extra['generation']}.json"
    assert response.text in [row["messages"][2]["content"] for row in json.loads(file.read_text())]


def test_the_draw_depends_on_seed_and_problems_not_on_their_order(made, tmp_path):
    shutil.copytree(made, tmp_path / "turned")
    for file in (tmp_path / "turned").rglob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_text())[::-1]))
    ids = [
        {r.response_id for r in load_sets(SMALL, f)[0].responses}
        for f in (made, tmp_path / "turned")
    ]
    assert ids[0] == ids[1]


def test_what_was_drawn_is_kept(made, monkeypatch):
    one, _ = load_sets(SMALL, made)
    monkeypatch.setattr(sets, "import_pool", None)
    monkeypatch.setenv("RSR", str(made))
    again, _ = load_sets(SMALL)
    assert again == one


def test_a_problem_that_stands_twice_is_drawn_once(made, tmp_path):
    shutil.copytree(made, tmp_path / "twice")
    for file in (tmp_path / "twice").rglob("*.json"):
        rows = json.loads(file.read_text())
        file.write_text(json.dumps(rows + rows[:1]))
    pool, _ = load_sets(SMALL, tmp_path / "twice")
    assert len(pool.responses) == 66


def test_other_files_are_left_alone(made):
    names = [path.relative_to(made).as_posix() for path in made.rglob("*.json")]
    more = [*names, "README.md", "selected_by_rsr/rsr-min_for_qwen25-3b-base.json"]
    assert find_sets(PLAN, more, "data") == find_sets(PLAN, names, "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "qwen3-8b"), "no file qwen3-8b/short-sys_5k_gen1"),
        (lambda folder: shutil.rmtree(folder / "qwq-32b"), "mend the folder of QwQ-32B in lalp/"),
        (
            lambda folder: shutil.copytree(folder / "qwq-32b", folder / "qwq-2"),
            r"2 files qwq\*/short-sys_5k_gen1.json",
        ),
        (
            lambda folder: (folder / "qwen3-8b" / "short-sys_5k_gen2.json").write_text(
                '[{"a": 1}]'
            ),
            "qwen3-8b/short-sys_5k_gen2.json, item 1: ",
        ),
        (
            lambda folder: (folder / "qwen3-8b" / "short-sys_5k_gen2.json").write_text(
                (folder / "qwen3-8b" / "short-sys_5k_gen2.json").read_text()[:-40]
            ),
            "invalid JSON",
        ),
    ],
)
def test_what_is_not_the_data_set_is_refused_in_one_line(made, tmp_path, change, message):
    folder = tmp_path / "wrong"
    shutil.copytree(made, folder)
    change(folder)
    with pytest.raises(InputError, match=message):
        load_sets(SMALL, folder)


def test_a_folder_that_is_not_there_and_sets_that_are_too_small(made, tmp_path):
    with pytest.raises(InputError, match="none: no such folder: give the folder of Umean/RSR_data"):
        load_sets(SMALL, tmp_path / "none")
    with pytest.raises(InputError, match="holds 6 problems, 67 are planned"):
        load_sets(PLAN, made)


def test_the_hub_is_asked_for_the_pinned_revision(made, monkeypatch):
    asked = []

    def listed(self, repository, **where):
        asked.append((repository, where))
        return [path.relative_to(made).as_posix() for path in made.rglob("*.json")]

    def fetched(repository, name, **where):
        asked.append((repository, where))
        return str(made / name)

    monkeypatch.setattr(sets.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(sets, "hf_hub_download", fetched)
    assert len(load_sets(SMALL)[0].responses) == 66
    where = {"repo_type": "dataset", "revision": PLAN.revision}
    assert asked == [("Umean/RSR_data", where)] * 34


def test_without_a_hub_and_a_folder_the_error_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(sets.HfApi, "list_repo_files", offline)
    with pytest.raises(InputError, match=r"cannot be listed \(no network\): go online, or set RSR"):
        load_sets(SMALL)
