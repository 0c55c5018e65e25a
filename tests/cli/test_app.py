"""The `lalp` command: what it prints and writes, and how it refuses bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import build_student

from lalp.pools.reading import load_pool
from lalp.scoring.table import load_scores
from lalp.steps.sentences import split_steps

ROOT = Path(__file__).parents[2]
RECORDS = [
    {"prompt_id": prompt, "prompt": question, "teacher": teacher, "response": text, "answer": "7"}
    for prompt, question, texts in [
        ("p1", "What is 3 + 4?", ["We add. So the sum is 7.", "7", "Let us check: 3 + 4 = 7."]),
        ("p2", "What is 2 + 5?", ["First, add. So 7. 🙂", "It is 7.", "Then x = 7.\n\nYes."]),
        ("p3", "What is 6 + 1?", ["The sum is 7.", "Add 1. Therefore 7.", "x = 7. So it is 7."]),
    ]
    for teacher, text in zip(("Ada", "Bob", "Eve"), texts, strict=True)
]


def write_pool(path: Path, records: list[dict] = RECORDS) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def pool_file(tmp_path) -> Path:
    return write_pool(tmp_path / "pool.jsonl")


def scores_frame(**columns: object) -> pd.DataFrame:
    """A score table with texts, whose order of teachers is plain: Ada, then Bob, then Eve."""
    level = {"Ada": -1.0, "Bob": -2.0, "Eve": -3.0}
    rows = [
        {
            "prompt_id": record["prompt_id"],
            "response_id": f"{record['prompt_id']}/{record['teacher']}/0",
            "teacher": record["teacher"],
            "correct": True,
            "num_tokens": 10,
            "num_steps": 2,
            "mean_rank": 3.0,
            "mean_entropy": 1.0,
            "galp": level[record["teacher"]] - 0.01 * i,
            "lalp@2": -4.0 - level[record["teacher"]] + 0.01 * i,
            "lalp@25%": level[record["teacher"]],
            "reason": None,
            "prompt": [{"role": "user", "content": record["prompt"]}],
            "response": record["response"],
        }
        for i, record in enumerate(RECORDS)
    ]
    return pd.DataFrame(rows).assign(**columns)


@pytest.fixture
def scores_file(tmp_path) -> Path:
    scores_frame().to_parquet(tmp_path / "scores.parquet", index=False)
    return tmp_path / "scores.parquet"


# --- happy paths ------------------------------------------------------------------------------


def test_check(lalp, pool_file):
    with pool_file.open("a") as file:
        file.write("\n")
    done = lalp("check", pool_file, "--json")
    assert done.code == 0
    assert done.err == ""
    assert json.loads(done.out) == {
        "num_prompts": 3,
        "num_responses": 9,
        "responses_by_teacher": {"Ada": 3, "Bob": 3, "Eve": 3},
        "prompts_by_num_teachers": {"3": 3},
        "num_correct": 0,
        "num_incorrect": 0,
        "num_unverified": 9,
        "num_prompts_with_answer": 3,
        "num_duplicate_texts": 0,
        "left_out": {"blank line": 1},
    }
    done = lalp("check", pool_file)
    assert done.code == 0
    assert done.out.startswith("3 prompts, 9 responses\n")
    assert re.search(r"1  left out: blank line", done.out)


@pytest.mark.parametrize("splitter", ["sentences", "paragraphs"])
def test_segment(lalp, pool_file, tmp_path, splitter):
    out = tmp_path / "new" / "steps.jsonl"
    done = lalp("segment", pool_file, "--out", out, "--splitter", splitter)
    assert done.code == 0
    assert done.err == f"lalp: 9 responses cut into steps: {out}\n"
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 9
    for line, record in zip(lines, RECORDS, strict=True):
        assert set(line) == {"prompt_id", "response_id", "teacher", "steps"}
        assert (line["prompt_id"], line["teacher"]) == (record["prompt_id"], record["teacher"])
        text = record["response"]
        pieces = [text[start:end] for start, end in line["steps"]]
        assert "".join(pieces) == text
        assert all(pieces)
        assert line["steps"][0][0] == 0
        assert [end for _, end in line["steps"][:-1]] == [start for start, _ in line["steps"][1:]]
    assert lines[0]["response_id"] == "p1/Ada/0"
    assert len(lines[5]["steps"]) == 2  # "Then x = 7." and, after a blank line, "Yes."


def test_segment_by_tokens_then_plan_and_score_with_the_file(lalp, pool_file, model, tmp_path):
    student = ["--student", model]
    steps = tmp_path / "steps.jsonl"
    done = lalp("segment", pool_file, "--splitter", "4t", *student, "--out", steps, "--json")
    assert done.code == 0
    lines = [json.loads(line) for line in steps.read_text(encoding="utf-8").splitlines()]
    assert json.loads(done.out) == {
        "num_responses": 9,
        "num_steps": sum(len(line["steps"]) for line in lines),
        "fallbacks": {},
    }
    for line, record in zip(lines, RECORDS, strict=True):
        assert "".join(record["response"][a:b] for a, b in line["steps"]) == record["response"]
    # A checked file is written again as it is.
    again = tmp_path / "again.jsonl"
    assert lalp("segment", pool_file, "--splitter", steps, "--out", again).code == 0
    assert again.read_text() == steps.read_text()
    for splitter in ("4t", steps):
        options = [pool_file, *student, "--splitter", splitter]
        cost = json.loads(lalp("plan", *options, "--json").out)
        assert cost["num_steps"] == sum(len(line["steps"]) for line in lines)
        assert lalp("score", *options, "--quiet", "--out", tmp_path / "s.parquet").code == 0
        scores = load_scores(tmp_path / "s.parquet")
        assert list(scores["num_steps"]) == [len(line["steps"]) for line in lines]
        assert scores.attrs["splitter"] == str(splitter)


def test_plan(lalp, pool_file, model):
    arguments = ["plan", pool_file, "--student", model, "--window", 1, "--window", "all"]
    done = lalp(*arguments, "--json")
    assert done.code == 0
    cost = json.loads(done.out)
    assert cost["num_responses"] == 9
    assert cost["num_steps"] == sum(len(split_steps(r["response"], "sentences")) for r in RECORDS)
    assert cost["flops"] > 0
    assert cost["seconds"] > 0
    done = lalp(*arguments)
    assert done.code == 0
    assert f"9 responses, {cost['num_steps']} steps" in done.out
    assert f"{cost['fed_tokens']:,} tokens to feed" in done.out
    assert not (pool_file.parent / "build").exists()


def test_score_teachers_and_select_one_after_another(lalp, pool_file, model, tmp_path):
    out = tmp_path / "run" / "scores.parquet"
    options = ["--student", model, "--window", 1, "--window", "25%", "--out", out]
    done = lalp("score", pool_file, *options, "--tokens", "--quiet", "--store", tmp_path / "store")
    assert done.code == 0
    assert f"lalp: 9 responses scored: {out}" in done.err
    scores = load_scores(out)
    assert len(scores) == 9
    assert (scores[["galp", "lalp@1", "lalp@25%"]] < 0).all(axis=None)
    assert "lalp@25%:tokens" in scores
    assert list(tmp_path.glob("store/*/*.parquet"))
    assert not (tmp_path / "build").exists()

    ranking = json.loads(lalp("teachers", out, "--json").out)
    assert list(ranking["rankings"]) == ["galp", "lalp@1", "lalp@25%"]
    best = ranking["rankings"]["galp"][0]
    means = scores.groupby("teacher")["galp"].mean()
    assert best["teacher"] == means.idxmax()
    assert best["mean"] == pytest.approx(means.max())

    chosen = tmp_path / "train.jsonl"
    done = lalp("select", out, "--rule", "lalp", "--window", 1, "--out", chosen, "--json")
    assert done.code == 0
    expected = scores.loc[scores.groupby("prompt_id")["lalp@1"].idxmax(), "response_id"]
    assert json.loads(done.out)["response_ids"] == list(expected)
    assert {r.response_id for r in load_pool(chosen).responses} == set(expected)


def test_score_says_what_it_could_not_score(lalp, pool_file, tokenizer, tmp_path):
    short = build_student("llama", tokenizer, max_position_embeddings=28)
    short.model.save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    out = tmp_path / "scores.parquet"
    options = ["--student", tmp_path / "short", "--window", 0, "--out", out, "--quiet"]
    done = lalp("score", pool_file, *options, "--json")
    assert done.code == 0
    scores = load_scores(out)
    told = json.loads(done.out)
    assert told["num_responses"] == 9
    assert told["student"] == str(tmp_path / "short")
    assert told["unscored"] == dict(
        scores.loc[scores["reason"].notna(), ["response_id", "reason"]].itertuples(index=False)
    )
    assert list(scores.loc[scores["reason"].notna(), "response_id"]) == ["p2/Ada/0", "p3/Eve/0"]
    assert "2 of them lack a score, for example p2/Ada/0: galp: " in done.err
    assert "exceed the student's 28 positions" in done.err
    assert (tmp_path / "build" / "scores").is_dir()  # where shards go by default
    done = lalp("select", out, "--rule", "galp", "--out", tmp_path / "t.jsonl")
    assert done.code == 2
    assert "--skip-unscored" in done.err
    done = lalp("select", out, "--rule", "galp", "--out", tmp_path / "t.jsonl", "--skip-unscored")
    assert done.code == 0
    assert "left out: unscored responses" in done.out


def test_teachers(lalp, scores_file):
    done = lalp("teachers", scores_file, "--json")
    assert done.code == 0
    result = json.loads(done.out)
    order = {name: [row["teacher"] for row in rows] for name, rows in result["rankings"].items()}
    assert order["galp"] == order["lalp@25%"] == ["Ada", "Bob", "Eve"]
    assert order["lalp@2"] == ["Eve", "Bob", "Ada"]
    assert result["num_prompts"] == {"galp": 3, "lalp@2": 3, "lalp@25%": 3}
    assert result["kendall_tau"]["galp"] == {"galp": 1, "lalp@2": -1, "lalp@25%": 1}
    assert result["prompts_enough"]["galp"][-1]["order_share"] == 1
    done = lalp("teachers", scores_file, "--window", "25%", "--json")
    assert list(json.loads(done.out)["rankings"]) == ["galp", "lalp@25%"]
    done = lalp("teachers", scores_file)
    assert done.code == 0
    assert "galp, nats per token, 3 prompts in common" in done.out
    assert re.search(r"1\. Ada +-1\.0300", done.out)  # the mean of -1.00, -1.03 and -1.06
    assert re.search(r"-1\.00 +lalp@2", done.out)


def test_teachers_of_one_teacher(lalp, tmp_path):
    frame = scores_frame()
    frame[frame["teacher"] == "Bob"].to_parquet(tmp_path / "bob.parquet")
    done = lalp("teachers", tmp_path / "bob.parquet", "--json")
    assert done.code == 0
    result = json.loads(done.out)
    (row,) = result["rankings"]["galp"]
    assert (row["teacher"], row["rank"]) == ("Bob", 1)
    assert result["kendall_tau"] == result["prompts_enough"] == {}
    assert lalp("teachers", tmp_path / "bob.parquet").code == 0


def test_teachers_over_one_prompt_prints_null_for_nan(lalp, tmp_path):
    scores_frame().iloc[:3].to_parquet(tmp_path / "one.parquet")
    done = lalp("teachers", tmp_path / "one.parquet", "--json")
    assert done.code == 0
    assert json.loads(done.out)["rankings"]["galp"][0]["low"] is None
    assert lalp("teachers", tmp_path / "one.parquet").code == 0


QUESTIONS = {record["prompt_id"]: record["prompt"] for record in RECORDS}


def check_messages(path: Path) -> None:
    pool = load_pool(path)
    assert [response.response_id for response in pool.responses] == [
        "p1/Eve/0",
        "p2/Eve/0",
        "p3/Eve/0",
    ]
    assert pool.responses[1].text == "Then x = 7.\n\nYes."
    assert {p.prompt_id: p.messages[0].content for p in pool.prompts.values()} == QUESTIONS


def check_prompt_completion(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == [
        [{"role": "user", "content": question}] for question in QUESTIONS.values()
    ]
    assert lines[0]["completion"] == [{"role": "assistant", "content": "Let us check: 3 + 4 = 7."}]


def check_llamafactory(path: Path) -> None:
    entry = json.loads((path / "dataset_info.json").read_text())["train"]
    records = json.loads((path / entry["file_name"]).read_text(encoding="utf-8"))
    (turns,) = (record[entry["columns"]["messages"]] for record in records[:1])
    tags = entry["tags"]
    assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
    assert turns[1][tags["content_tag"]] == "Let us check: 3 + 4 = 7."
    assert len(records) == 3


@pytest.mark.parametrize(
    ("fmt", "name", "check"),
    [
        ("messages", "t.jsonl", check_messages),
        ("prompt-completion", "t.jsonl", check_prompt_completion),
        ("llamafactory", "data", check_llamafactory),
    ],
)
def test_select_in_every_format(lalp, scores_file, tmp_path, fmt, name, check):
    options = ["--rule", "lalp", "--window", 2, "--out", tmp_path / name, "--format", fmt]
    done = lalp("select", scores_file, *options)
    assert done.code == 0
    assert done.out.split() == ["3", "100.0", "%", "Eve"]
    assert done.err == f"lalp: 3 responses written: {tmp_path / name}\n"
    check(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "teachers"),
    [
        (["--rule", "galp"], {"Ada": 3}),
        (["--rule", "galp-lowest"], {"Eve": 3}),
        (["--rule", "lalp-lowest", "--window", "2"], {"Ada": 3}),
        (["--rule", "lalp", "--window", "25%"], {"Ada": 3}),
        (["--rule", "random", "--like", "galp"], {"Ada": 3}),
        (["--rule", "random", "--like", "lalp", "--window", "2"], {"Eve": 3}),
    ],
)
def test_select_by_every_rule(lalp, scores_file, tmp_path, options, teachers):
    done = lalp("select", scores_file, *options, "--out", tmp_path / "t.jsonl", "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert result["num_selected"] == len(result["response_ids"]) == 3
    assert {name: row["count"] for name, row in result["teacher_mix"].items()} == teachers
    assert sum(row["percent"] for row in result["teacher_mix"].values()) == pytest.approx(100)
    assert result["left_out"] == {}


def test_a_random_selection_depends_on_the_seed_only(lalp, scores_file, tmp_path):
    def chosen(seed: int) -> list[str]:
        options = ["--rule", "random", "--seed", seed, "--out", tmp_path / "t.jsonl", "--json"]
        return json.loads(lalp("select", scores_file, *options).out)["response_ids"]

    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(8)}) > 1


def test_ties_are_broken_as_asked(lalp, tmp_path):
    frame = scores_frame(galp=-1.0)
    frame["num_tokens"] = frame["teacher"].map({"Ada": 9, "Bob": 8, "Eve": 7})
    frame.to_parquet(tmp_path / "ties.parquet")
    for tie, teacher in (("first", "Ada"), ("shortest", "Eve")):
        options = ["--rule", "galp", "--tie", tie, "--out", tmp_path / "t.jsonl", "--json"]
        mix = json.loads(lalp("select", tmp_path / "ties.parquet", *options).out)["teacher_mix"]
        assert list(mix) == [teacher]


# --- bad input --------------------------------------------------------------------------------

BAD_COMMANDS = {
    "check none.jsonl": "none.jsonl: no such file",
    "check folder": "folder: is a folder",
    "check bad.jsonl": "bad.jsonl, line 2: invalid JSON",
    "check bad.jsonl --json": "bad.jsonl, line 2: invalid JSON",
    "check empty.jsonl": "the file is empty",
    "check blank.jsonl": "blank.jsonl, line 2: field 'response' is empty",
    "check pool.csv": "not '.csv'",
    "segment none.jsonl --out new": "none.jsonl: no such file",
    "segment pool.jsonl --out new --splitter words": "splitter",
    "segment bad.jsonl --out new": "bad.jsonl, line 2",
    "segment pool.jsonl --out new --splitter llm": "--splitter llm needs --llm-url and --llm-model",
    "segment pool.jsonl --out new --splitter llm --llm-url http://x": "needs --llm-url and",
    "segment pool.jsonl --out new --llm-model m": "--llm options go with --splitter llm",
    "segment pool.jsonl --out new --splitter none.jsonl": "none.jsonl: cannot be read",
    "segment pool.jsonl --out new --splitter 8t --student ./none": "no such folder",
    "segment pool.jsonl --out new --splitter steps.jsonl": "steps.jsonl: 8 of 9 responses have no",
    "segment pool.jsonl --out folder": "folder: exists and is not a regular file",
    "plan pool.jsonl --student tiny --window x": "window 'x' is not understood",
    "plan pool.jsonl --student tiny --splitter words": "splitter",
    "plan pool.jsonl --student tiny --splitter steps.jsonl": "8 of 9 responses have no steps",
    "plan pool.jsonl --student ./none": "student './none': no such folder",
    "plan pool.jsonl --student no-such-org/none": "student 'no-such-org/none' cannot be loaded",
    "score none.jsonl --student tiny --out new.parquet": "none.jsonl: no such file",
    "score bad.jsonl --student tiny --out new.parquet": "bad.jsonl, line 2",
    "score pool.jsonl --student tiny --out new.csv": "--out new.csv: scores are written as Parquet",
    "score pool.jsonl --student tiny --out new": "give a name in .parquet",
    "score pool.jsonl --student tiny --out new.parquet --window 101%": "window '101%'",
    "score pool.jsonl --student tiny --out new.parquet --window 4 --window 4": "more than once",
    "score pool.jsonl --student tiny --out new.parquet --window=-1": "window '-1'",
    "score pool.jsonl --student tiny --out new.parquet --splitter words": "splitter",
    "score pool.jsonl --student tiny --out new.parquet --splitter llm": "run `lalp segment",
    "score pool.jsonl --student tiny --out new.parquet --splitter steps.jsonl": "8 of 9 responses",
    "score pool.jsonl --student tiny --out new.parquet --splitter pool.jsonl": "pool.jsonl, line 1",
    "score pool.jsonl --student ./none --out new.parquet": "no such folder",
    "score pool.jsonl --student none.gguf --out new.parquet": "no such GGUF file",
    "score pool.jsonl --student no-such-org/none --out new.parquet": "cannot be loaded",
    "score pool.jsonl --student tiny --out new.parquet --device gpu7": "device 'gpu7'",
    "score pool.jsonl --student tiny --out new.parquet --store pool.jsonl": "make its folder",
    "teachers none.parquet": "none.parquet: not a readable score table",
    "teachers pool.jsonl": "pool.jsonl: not a readable score table",
    "teachers cut.parquet": "cut.parquet: not a readable score table",
    "teachers other.parquet": "other.parquet: not a score table, column 'galp' is missing",
    "teachers scores.parquet --window 4": "lalp@4 is not in the table, it holds lalp@2, lalp@25%",
    "teachers scores.parquet --window x": "window 'x' is not understood",
    "teachers nan.parquet --window 2": "no prompt",
    "select pool.jsonl --rule galp --out new": "not a readable score table",
    "select scores.parquet --rule best --out new": "there is no rule 'best'",
    "select scores.parquet --rule galp --out new --format csv": "unknown training format 'csv'",
    "select scores.parquet --rule lalp --out new": "a LALP rule needs a window",
    "select scores.parquet --rule lalp --window 9 --out new": "no column 'lalp@9'",
    "select scores.parquet --rule galp --tie longest --out new": "there is no tie rule 'longest'",
    "select scores.parquet --rule galp --like lalp --out new": "--like goes with --rule random",
    "select scores.parquet --rule random --like best --out new": "there is no rule 'best'",
    "select nan.parquet --rule galp --out new": "1 of 9 candidate responses have no score galp",
    "select nan.parquet --rule lalp --window 2 --out new --skip-unscored": "no candidate is left",
    "select bare.parquet --rule galp --out new": "bare.parquet: the table holds no texts",
    "select scores.parquet --rule galp --out folder": "folder: exists and is not a regular file",
    "select scores.parquet --rule galp --out pool.jsonl --format llamafactory": "is a file",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch, pool_file, scores_file, model) -> Path:
    """A folder with good and bad files, as the current one."""
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(model)
    Path("folder").mkdir()
    lines = pool_file.read_text().splitlines(keepends=True)
    Path("bad.jsonl").write_text(lines[0] + '{"prompt_id": "p1", \n' + lines[1])
    Path("empty.jsonl").write_text("")
    write_pool(Path("blank.jsonl"), [RECORDS[0], RECORDS[1] | {"response": " "}])
    Path("pool.csv").write_text("prompt_id,prompt\n")
    Path("steps.jsonl").write_text('{"response_id": "p1/Bob/0", "steps": [[0, 1]]}\n')
    Path("cut.parquet").write_bytes(scores_file.read_bytes()[:-50])
    frame = scores_frame()
    frame.drop(columns="galp").to_parquet("other.parquet")
    frame.drop(columns=["prompt", "response"]).to_parquet("bare.parquet")
    frame.loc[3, "galp"], frame["lalp@2"] = float("nan"), float("nan")
    frame.to_parquet("nan.parquet")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", BAD_COMMANDS)
def test_bad_input_is_one_line_and_code_2_and_writes_nothing(lalp, workplace, command):
    before = contents(workplace)
    done = lalp(*command.split())
    assert done.code == 2
    assert BAD_COMMANDS[command] in done.err
    assert done.err.startswith("lalp: ")
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")
    assert done.out == ""
    assert contents(workplace) == before  # no output, no half of one, nothing temporary


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "chekc pool.jsonl",
        "check pool.jsonl --nonsense",
        "segment pool.jsonl",
        "score pool.jsonl",
        "select scores.parquet --rule galp",
        "select scores.parquet --rule galp --out new --seed x",
    ],
)
def test_wrong_usage_is_code_2(lalp, workplace, command):
    done = lalp(*command.split())
    assert done.code == 2
    assert "Usage" in done.err
    assert "Traceback" not in done.err


def test_help_names_every_command(lalp):
    done = lalp("--help")
    assert done.code == 0
    for command in ("check", "segment", "plan", "score", "teachers", "select"):
        assert command in done.out
        assert lalp(command, "--help").code == 0


def test_an_output_that_exists_is_replaced_only_by_a_whole_one(lalp, workplace):
    Path("out.jsonl").write_text("precious")
    assert lalp("select", "nan.parquet", "--rule", "galp", "--out", "out.jsonl").code == 2
    assert Path("out.jsonl").read_text() == "precious"
    assert lalp("select", "scores.parquet", "--rule", "galp", "--out", "out.jsonl").code == 0
    assert len(load_pool("out.jsonl").responses) == 3


def test_a_damaged_shard_is_reported_to_people(lalp, pool_file, model, tmp_path):
    options = ["--student", model, "--out", tmp_path / "scores.parquet", "--quiet"]
    arguments = ["score", pool_file, *options, "--store", tmp_path / "store"]
    assert lalp(*arguments).code == 0
    first = (tmp_path / "scores.parquet").read_bytes()
    shard = min((tmp_path / "store").glob("*/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-30])
    done = lalp(*arguments)
    assert done.code == 0
    assert f"lalp: scoring again: shard {shard.name} cannot be used (" in done.err
    assert (tmp_path / "scores.parquet").read_bytes() == first


# --- as a process -----------------------------------------------------------------------------


def run_process(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess:
    start = ["-m", "lalp.cli"] if code is None else ["-c", code]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TQDM_DISABLE", None)
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [(None, "no such file"), ('{"prompt_id"\n', "line 1: invalid JSON")],
)
def test_a_process_ends_with_code_2_and_one_line(tmp_path, lines, message):
    pool = tmp_path / "pool.jsonl"
    if lines:
        pool.write_text(lines)
    done = run_process("check", pool)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"lalp: {pool}")
    assert message in line


def test_check_does_not_wait_for_torch(pool_file):
    code = (
        "import sys\nfrom lalp.cli import app\n"
        "try:\n    app.main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'scipy', 'seaborn'} & set(sys.modules)))"
    )
    done = run_process("check", pool_file, "--json", code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert json.loads(done.stdout.rpartition("\n[")[0])["num_responses"] == 9


def test_score_as_a_process_keeps_standard_output_clean(pool_file, model, tmp_path):
    out = tmp_path / "scores.parquet"
    options = ["--student", model, "--out", out, "--store", tmp_path / "store"]
    done = run_process("score", pool_file, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    *_, last = done.stderr.splitlines()
    assert last == f"lalp: 9 responses scored: {out}"
    assert "tok/s" in done.stderr  # the progress bar
    assert "lalp@4" in load_scores(out)  # the default window
