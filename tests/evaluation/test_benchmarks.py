"""The registry of evaluation sets, and reading their files."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.evaluation.benchmarks import (
    AVERAGED,
    BENCHMARKS,
    benchmark_digest,
    find_benchmark,
    load_benchmark,
    load_solutions,
    problem_digest,
    read_problems,
)
from lalp.paper.tables import BENCHMARKS as MATH_COLUMNS
from lalp.pools.pool import Message, Prompt
from tests.evaluation.test_livecodebench import write

SHARED = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
TABLES = yaml.safe_load(Path(__file__).with_name("records.yaml").read_text(encoding="utf-8"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/benchmarks here")


def problems(count: int, **fields: object) -> list[dict]:
    return [{"problem": f"What is {i} + 1?", "answer": i + 1} | fields for i in range(count)]


def read(records: list[object], name: str = "math500", **changes: object) -> list[Prompt]:
    benchmark = replace(BENCHMARKS[name], **changes)
    return read_problems(enumerate(records, 1), benchmark, "x.jsonl", "line")


# --- the registry ------------------------------------------------------------------------------


def test_the_registry_is_that_of_the_paper():
    assert [benchmark.size for benchmark in BENCHMARKS.values()] == [
        *(500, 30, 40, 272, 199, 675, 30, 198, 511)
    ]
    assert tuple(BENCHMARKS[name].title for name in AVERAGED) == MATH_COLUMNS
    assert list(BENCHMARKS)[7:] == ["gpqa_diamond", "livecodebench"]
    assert [b.grader for b in BENCHMARKS.values()] == ["math"] * 7 + ["choice", "code"]
    assert len({b.title for b in BENCHMARKS.values()}) == len(BENCHMARKS)
    names = Counter(name for b in BENCHMARKS.values() for name in b.file_names)
    assert set(names.values()) == {1}
    assert "aime" not in names  # LIMO's is AIME 2024


@pytest.mark.parametrize("name", ["math501", "nowhere/own.jsonl", "own.txt", ""])
def test_an_unknown_benchmark(name):
    with pytest.raises(InputError, match=r"neither a known name .*math500.* nor a \.jsonl or"):
        find_benchmark(name)


# --- local files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["math500.jsonl", "math.jsonl", "math500.parquet", "math/test.jsonl"]
)
def test_a_folder_may_use_several_names(tmp_path, file):
    path = tmp_path / file
    if path.suffix == ".parquet":
        pd.DataFrame(problems(500)).to_parquet(path)
    else:
        write(path, *problems(500))
        path.write_text(path.read_text().rstrip("\n"))  # as LIMO's math.jsonl
    if path.stem == "math500":  # it comes before LIMO's name
        write(tmp_path / "math.jsonl", *problems(500, answer=0))
    prompts = load_benchmark("math500", tmp_path)
    assert len(prompts) == 500
    assert prompts[0] == Prompt("math500/0001", (Message("user", "What is 0 + 1?"),), "1")
    assert prompts[-1].prompt_id == "math500/0500"


def test_another_number_of_problems_is_refused_unless_allowed(tmp_path):
    write(tmp_path / "math.jsonl", *problems(499))
    with pytest.raises(InputError, match=r"math\.jsonl: 499 problems, but MATH has 500 \(paper"):
        load_benchmark("math500", tmp_path)
    assert len(load_benchmark("math500", tmp_path, allow_count=True)) == 499


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(InputError, match=r"holds no amc23; looked for amc23\.jsonl, .*amc\.jsonl"):
        load_benchmark("amc23", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_benchmark("amc23", tmp_path / "none")


def question(number: int) -> dict:
    options = {f"Incorrect Answer {k}": f"wrong {k} of {number}" for k in (1, 2, 3)}
    record = {"Question": f"Q{number}?", "Correct Answer": f"right of {number}", **options}
    return record | {"Record ID": f"rec{number}"}


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        *TABLES["refused"],
        *(("gpqa_diamond", question(0) | changes, why) for changes, why in TABLES["choices"]),
    ],
)
def test_a_record_that_cannot_be_used(name, record, message):
    first = {"problem": "b", "answer": "A", "id": 0, "solution": r"\boxed{1}"}
    with pytest.raises(InputError, match=rf"^x\.jsonl, line 2: .*{re.escape(message)}"):
        read([first, record], name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("amc.jsonl", b'{"problem": "a", "answer": 1}\n\n{"p": \n', "line 3: invalid JSON"),
        ("amc.jsonl", b'{"problem": "\xff"}\n', "line 1: not UTF-8"),
        ("amc.parquet", b"PAR1 no", "broken or not a Parquet file"),
        ("amc23.jsonl", b"\n", "holds no problems"),
    ],
)
def test_broken_files_name_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        load_benchmark("amc23", tmp_path)


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "text"), TABLES["answers"])
def test_answers_become_text(answer, text):
    assert read([{"problem": "a", "answer": answer}])[0].answer == text


@given(st.integers(-(10**15), 10**15))
def test_whole_numbers_are_the_same_as_floats(number):
    texts = {
        read([{"problem": "a", "answer": n}])[0].answer for n in (number, float(number), [number])
    }
    assert texts == {str(number)}


@pytest.mark.parametrize(("name", "record", "answer"), TABLES["places"])
def test_where_the_answer_stands(name, record, answer):
    assert read([record], name)[0].answer == answer


# --- options -----------------------------------------------------------------------------------


def test_options_are_lettered_and_the_answer_is_the_letter_of_the_right_one():
    for prompt in read([question(n) for n in range(20)], "gpqa_diamond"):
        number = int(prompt.prompt_id[-4:]) - 1
        text = prompt.messages[0].content
        assert text.startswith(f"Q{number}?\n\n(A) ")
        assert f"({prompt.answer}) right of {number}\n" in text
        assert all(f"wrong {k} of {number}" in text for k in (1, 2, 3))


def test_the_order_of_options_depends_on_their_texts_alone():
    record = question(1)
    moved = dict(reversed(record.items())) | {
        "Incorrect Answer 1": record["Incorrect Answer 3"],
        "Incorrect Answer 3": record["Incorrect Answer 1"],
        "Record ID": "another",
    }
    contents = [read([r], "gpqa_diamond")[0] for r in (record, moved)]
    assert contents[0] == contents[1]


def test_every_letter_is_right_about_equally_often():
    letters = Counter(p.answer for p in read([question(n) for n in range(400)], "gpqa_diamond"))
    # 100 each on average; five standard deviations of a binomial count are 43.
    assert all(57 <= letters[letter] <= 143 for letter in "ABCD")


# --- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The real `datasets`, without a network, with its cache in a folder of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_configurations_are_joined_in_order(hub, monkeypatch, tmp_path):
    folder = tmp_path / "set"
    for config, first in (("AIME2025-I", 0), ("AIME2025-II", 15)):
        rows = [{"question": f"Q{i}", "answer": str(i)} for i in range(first, first + 15)]
        write(folder / f"{config}.jsonl", *rows)
    card = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}.jsonl\n"
        for name in ("AIME2025-I", "AIME2025-II")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    monkeypatch.setitem(BENCHMARKS, "aime25", replace(BENCHMARKS["aime25"], hub_id=str(folder)))
    prompts = load_benchmark("aime25")
    assert [prompt.answer for prompt in prompts] == [str(i) for i in range(30)]
    assert prompts[16].messages[0].content == "Q16"


def test_a_plain_file_is_read_from_its_address(hub, monkeypatch, tmp_path):
    path = write(tmp_path / "test.jsonl", *problems(30))
    local = replace(BENCHMARKS["cn_math_2024"], url=str(path))
    monkeypatch.setitem(BENCHMARKS, "cn_math_2024", local)
    assert len(load_benchmark("cn_math_2024")) == 30


def test_without_the_hub_it_says_how_to_get_the_file(hub, monkeypatch):
    def unreachable(*args: object, **options: object) -> None:
        assert "trust_remote_code" not in options
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(hub, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"amc23.*\(no route\).*datasets/math-ai/amc23.*--data"):
        load_benchmark("amc23")
    with pytest.raises(InputError, match=r"kaoyan: .*raw\.githubusercontent.*kaoyan/test\.jsonl"):
        load_benchmark("kaoyan")
    with pytest.raises(InputError, match="Gated: accept its terms"):
        load_benchmark("gpqa_diamond")


# --- files of one's own ------------------------------------------------------------------------


def test_problems_of_ones_own(tmp_path):
    path = write(tmp_path / "mine.jsonl", {"question": "What is 1 + 1?", "answer": 2.0})
    prompt = Prompt("mine/0001", (Message("user", "What is 1 + 1?"),), "2")
    assert load_benchmark(str(path)) == [prompt]
    assert find_benchmark(str(path)).name == "mine"
    path = write(tmp_path / "math500.jsonl", *problems(3))
    with pytest.raises(InputError, match="cannot be called like the benchmark 'math500'"):
        load_benchmark(str(path))


def test_a_pool_is_a_file_of_prompts(tmp_path):
    record = {"prompt_id": "p", "prompt": "What is 1 + 1?", "teacher": "A", "answer": 2}
    path = write(tmp_path / "pool.jsonl", *(record | {"response": text} for text in ("2", "3")))
    assert load_benchmark(str(path)) == [Prompt("p", (Message("user", "What is 1 + 1?"),), "2")]
    write(path, {"prompt_id": "p", "prompt": "Why?", "teacher": "A", "response": "So."})
    with pytest.raises(InputError, match="prompt 'p' has no answer"):
        load_benchmark(str(path))


# --- digests -----------------------------------------------------------------------------------


def test_a_digest_changes_with_text_answer_and_order():
    prompts = [Prompt(f"p{i}", (Message("user", f"Q{i}"),), str(i)) for i in range(3)]
    changes = ({"messages": (Message("user", "Q9"),)}, {"answer": "9"}, {"prompt_id": "p9"})
    variants = [[replace(prompts[0], **change), *prompts[1:]] for change in changes]
    variants += [prompts, prompts[::-1], prompts[:2]]
    assert len({benchmark_digest(variant) for variant in variants}) == len(variants)
    assert len({problem_digest(variant[0]) for variant in variants}) == 5  # two begin alike


# --- the real files ----------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("name", "first", "solutions"),
    [
        ("math500", r"\left( 3, \frac{\pi}{2} \right)", 500),
        ("amc23", "27", 0),
        ("cn_math_2024", r"\frac{5}{17}", 0),
    ],
)
def test_limos_files(name, first, solutions):
    prompts = load_benchmark(name, SHARED)
    assert len(prompts) == BENCHMARKS[name].size
    assert prompts[0].answer == first
    assert len({prompt.messages[0].content for prompt in prompts}) == len(prompts)
    assert len(load_solutions(name, SHARED)) == solutions


def test_solutions_by_prompt(tmp_path):
    records = [{"problem": "a", "answer": 1, "solution": "We add."}, {"problem": "b", "answer": 2}]
    write(tmp_path / "math500.jsonl", *records)
    assert load_solutions("math500", tmp_path) == {"math500/0001": "We add."}
    assert load_solutions("amc23", tmp_path) == load_solutions("livecodebench", tmp_path) == {}
