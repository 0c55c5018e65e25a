"""The `lalp` command: what it prints and writes, and how it refuses bad input."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import build_student

from lalp.cli import models, pools, scores
from lalp.pools.pool import pool_summary
from lalp.pools.reading import load_pool
from lalp.scoring.table import load_scores
from lalp.steps.sentences import split_steps
from lalp.steps.summary import step_summary
from tests.pools.builders import jsonl, read_lines

TEXTS = {
    "What is 3 + 4?": ["We add. So the sum is 7.", "7", "Let us check: 3 + 4 = 7."],
    "What is 2 + 5?": ["First, add. So 7. 🙂", "It is 7.", "Then x = 7.\n\nYes."],
    "What is 6 + 1?": ["The sum is 7.", "Add 1. Therefore 7.", "x = 7. So it is 7."],
}
RECORDS = [
    {"prompt_id": f"p{n}", "prompt": asked, "teacher": teacher, "response": text, "answer": "7"}
    for n, (asked, texts) in enumerate(TEXTS.items(), 1)
    for teacher, text in zip(("Ada", "Bob", "Eve"), texts, strict=True)
]


@pytest.fixture
def pool_file(tmp_path) -> Path:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


def scores_frame(**columns: object) -> pd.DataFrame:
    """A score table with texts, whose order of teachers is plain: Ada, then Bob, then Eve."""
    frame = pd.DataFrame(RECORDS).drop(columns="answer")
    frame["prompt"] = [[{"role": "user", "content": asked}] for asked in frame["prompt"]]
    best = -frame["teacher"].map({"Ada": 1.0, "Bob": 2.0, "Eve": 3.0})
    scores = {"galp": best - 0.01 * frame.index, "lalp@2": -4 - best, "lalp@25%": best}
    counts = {"num_tokens": 10, "num_steps": 2, "mean_rank": 3.0, "mean_entropy": 1.0}
    ids = {"response_id": frame["prompt_id"] + "/" + frame["teacher"] + "/0"}
    rest = {"correct": True, "reason": None}
    return frame.assign(**ids, **scores, **counts, **rest).assign(**columns)


@pytest.fixture
def scores_file(tmp_path) -> Path:
    scores_frame().to_parquet(tmp_path / "scores.parquet", index=False)
    return tmp_path / "scores.parquet"


# --- happy paths ------------------------------------------------------------------------------


def test_check(lalp, pool_file):
    with pool_file.open("a") as file:
        file.write("\n")
    done = lalp("check", pool_file, "--json")
    assert (done.code, done.err) == (0, "")
    pool = load_pool(pool_file)
    assert json.loads(done.out) == pool_summary(pool) | {"steps": step_summary(pool)}
    assert lalp("check", pool_file).out.splitlines() == [
        "3 prompts, 9 responses",
        *("         3  Ada", "         3  Bob", "         3  Eve"),
        "         3  prompts with responses by 3 teacher(s)",
        *("         0  correct", "         0  incorrect", "         9  unverified"),
        "         3  prompts with a reference answer",
        "         1  left out: blank line",
        "steps (sentences) of 9 responses",
        "         2  steps of a response at the median, 1 to 2 in 9 of 10, 2 at most",
        "         8  characters of a step at the median, 1 to 24 in 9 of 10, 24 at most",
        "         4  one step only (44.4%): LALP is GALP there",
    ]


def test_check_names_scripts_whose_sentences_are_not_known(lalp, tmp_path):
    thai = RECORDS[0] | {"response": "ดังนั้น เราได้ x = 5"}
    (tmp_path / "thai.jsonl").write_bytes(jsonl(thai))
    said = (
        "         1  in Thai, where only lines end a step: cut with --splitter llm or 32t instead"
    )
    assert said in lalp("check", tmp_path / "thai.jsonl").out.splitlines()


def test_segment(lalp, pool_file, tmp_path):
    out = tmp_path / "new" / "steps.jsonl"
    assert "there is no folder" in lalp("segment", pool_file, "--out", out).err
    done = lalp("segment", pool_file, "--out", out, "--parents")
    assert (done.code, done.err) == (0, f"lalp: 9 responses cut into steps: {out}\n")
    lines = read_lines(out)
    ids = {"prompt_id": "p1", "response_id": "p1/Ada/0", "teacher": "Ada"}
    assert lines[0] == ids | {"steps": [[0, 8], [8, 24]]}
    assert [len(line["steps"]) for line in lines] == [
        len(split_steps(record["response"], "sentences")) for record in RECORDS
    ]


def test_segment_prints_steps_to_read(lalp, pool_file, tmp_path):
    hostile = RECORDS[0] | {"response": "We \x1b[31madd:\n\t3 + 4. So 7.\n\nYes."}
    pool_file.write_bytes(jsonl(*RECORDS[1:3], hostile))
    done = lalp("segment", pool_file, "--text")
    assert (done.code, done.err) == (0, "")
    assert done.out.split("\n\n")[1:] == [
        "p1/Eve/0\n  1  Let us check: 3 + 4 = 7.",
        "p1/Ada/0\n  1  We \\x1b[31madd:\n  2  3 + 4.\n  3  So 7.\n  4  Yes.",
        "",
    ]
    out = tmp_path / "steps.jsonl"
    both = lalp("segment", pool_file, "--text", "--out", out)
    assert (both.out, len(read_lines(out))) == (done.out, 3)
    chunks = lalp("segment", pool_file, "--text", "--splitter", "paragraphs").out
    assert "\n  1  We \\x1b[31madd:\n         3 + 4. So 7.\n  2  Yes.\n" in chunks


def test_segment_by_tokens_then_plan_and_score_with_the_file(lalp, pool_file, model, tmp_path):
    student = ["--student", model]
    steps = tmp_path / "steps.jsonl"
    done = lalp("segment", pool_file, "--splitter", "4t", *student, "--out", steps, "--json")
    num_steps = [len(line["steps"]) for line in read_lines(steps)]
    counts = {"num_responses": 9, "num_steps": sum(num_steps), "fallbacks": {}}
    assert json.loads(done.out) == counts
    # A checked file is written again as it is.
    again = tmp_path / "again.jsonl"
    assert lalp("segment", pool_file, "--splitter", steps, "--out", again).code == 0
    assert again.read_text() == steps.read_text()
    for splitter in ("4t", steps):
        options = [pool_file, *student, "--splitter", splitter]
        cost = json.loads(lalp("plan", *options, "--json").out)
        assert cost["num_steps"] == sum(num_steps)
        assert lalp("score", *options, "--quiet", "--out", tmp_path / "s.parquet").code == 0
        scores = load_scores(tmp_path / "s.parquet")
        assert list(scores["num_steps"]) == num_steps
        assert scores.attrs["splitter"] == str(splitter)


def test_plan_for_people(lalp, pool_file, model):
    arguments = ["plan", pool_file, "--student", model, "--window", 1, "--window", "all"]
    cost = json.loads(lalp(*arguments, "--json").out)
    printed = lalp(*arguments).out
    assert f"9 responses, {cost['num_steps']} steps" in printed
    assert f"{cost['fed_tokens']:,} tokens to feed" in printed
    assert not (pool_file.parent / "build").exists()


def test_score_teachers_select_and_show_one_after_another(lalp, pool_file, model, tmp_path):
    out, chosen = tmp_path / "scores.parquet", tmp_path / "train.jsonl"
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

    rankings = json.loads(lalp("teachers", out, "--json").out)["rankings"]
    assert list(rankings) == ["galp", "lalp@1", "lalp@25%"]
    means = scores.groupby("teacher")["galp"].mean()
    assert rankings["galp"][0]["teacher"] == means.idxmax()
    assert rankings["galp"][0]["mean"] == pytest.approx(means.max())

    done = lalp("select", out, "--rule", "lalp", "--window", 1, "--out", chosen, "--json")
    expected = scores.loc[scores.groupby("prompt_id")["lalp@1"].idxmax(), "response_id"]
    assert json.loads(done.out)["response_ids"] == list(expected)
    assert {r.response_id for r in load_pool(chosen).responses} == set(expected)

    page = tmp_path / "page.html"
    done = lalp("show", out, "--response-id", "p1/Bob/0", "--window", 1, "--out", page)
    assert (done.code, done.err) == (0, f"lalp: heat map of p1/Bob/0: {page}\n")
    assert "(window 1)" in page.read_text(encoding="utf-8")


def test_score_says_what_it_could_not_score(lalp, pool_file, tokenizer, tmp_path):
    short = build_student("llama", tokenizer, max_position_embeddings=28)
    short.model.save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    out = tmp_path / "scores.parquet"
    options = ["--student", tmp_path / "short", "--window", 0, "--out", out, "--quiet"]
    done = lalp("score", pool_file, *options, "--json")
    assert done.code == 0
    scores = load_scores(out)
    told, unscored = json.loads(done.out), scores[scores["reason"].notna()]
    assert (told["num_responses"], told["student"]) == (9, str(tmp_path / "short"))
    assert told["unscored"] == dict(zip(unscored["response_id"], unscored["reason"], strict=True))
    assert list(unscored["response_id"]) == ["p2/Ada/0", "p3/Eve/0"]
    assert "2 of them lack a score, for example p2/Ada/0: galp: " in done.err
    assert "exceed the student's 28 positions" in done.err
    assert (tmp_path / "build" / "scores").is_dir()  # where shards go by default
    select = ["select", out, "--rule", "galp", "--out", tmp_path / "t.jsonl"]
    assert "--skip-unscored" in lalp(*select).err
    assert "left out: unscored responses" in lalp(*select, "--skip-unscored").out


def test_teachers(lalp, scores_file):
    result = json.loads(lalp("teachers", scores_file, "--json").out)
    order = {name: [row["teacher"] for row in rows] for name, rows in result["rankings"].items()}
    assert order["galp"] == order["lalp@25%"] == ["Ada", "Bob", "Eve"]
    assert order["lalp@2"] == ["Eve", "Bob", "Ada"]
    assert result["num_prompts"] == {"galp": 3, "lalp@2": 3, "lalp@25%": 3}
    assert result["kendall_tau"]["galp"] == {"galp": 1, "lalp@2": -1, "lalp@25%": 1}
    assert result["prompts_enough"]["galp"][-1]["order_share"] == 1
    done = lalp("teachers", scores_file, "--window", "25%", "--json")
    assert list(json.loads(done.out)["rankings"]) == ["galp", "lalp@25%"]
    done = lalp("teachers", scores_file)
    assert "galp, nats per token, 3 prompts in common" in done.out
    assert re.search(r"1\. Ada +-1\.0300", done.out)  # the mean of -1.00, -1.03 and -1.06
    assert re.search(r"-1\.00 +lalp@2", done.out)


def test_teachers_of_one_teacher_or_one_prompt(lalp, tmp_path):
    frame, results = scores_frame(), []
    for rows in (frame["teacher"] == "Bob", frame["prompt_id"] == "p1"):
        frame[rows].to_parquet(tmp_path / "some.parquet")
        assert lalp("teachers", tmp_path / "some.parquet").code == 0
        results.append(json.loads(lalp("teachers", tmp_path / "some.parquet", "--json").out))
    one_teacher, one_prompt = results
    assert [row["teacher"] for row in one_teacher["rankings"]["galp"]] == ["Bob"]
    assert one_teacher["kendall_tau"] == one_teacher["prompts_enough"] == {}
    assert one_prompt["rankings"]["galp"][0]["low"] is None  # NaN


def test_teachers_says_how_sure_the_first_place_is(lalp, tmp_path):
    frame = scores_frame()
    frame.attrs["student"] = "Qwen/Qwen2.5-7B-Instruct"
    frame["teacher"] = frame["teacher"].replace({"Bob": "QwQ-32B"})
    frame["lalp@all"] = frame["galp"]
    frame.to_parquet(tmp_path / "few.parquet")
    done = lalp("teachers", tmp_path / "few.parquet")
    assert "Ada is first with a probability of over 0.999: settled" in done.out
    assert "lalp: only 3 prompts in common under galp, lalp@2, lalp@25%, lalp@all" in done.err
    assert "lalp: QwQ-32B and the student Qwen/Qwen2.5-7B-Instruct come from one base" in done.err
    assert "lalp: window all keeps about 100% of the preceding tokens" in done.err
    assert "tau with GALP within prompts 1.00" in done.err
    result = json.loads(lalp("teachers", tmp_path / "few.parquet", "--json").out)
    assert result["first_place"]["galp"]["teacher"] == "Ada"
    assert len(result["warnings"]) == len(done.err.splitlines())
    frame[frame["prompt_id"] == "p1"].to_parquet(tmp_path / "one.parquet")
    done = lalp("teachers", tmp_path / "one.parquet")
    assert "too few prompts for an interval" in done.out
    assert "Ada is first here: too few prompts to say how sure that is" in done.out
    assert "nan" not in done.out


@pytest.mark.parametrize("fmt", ["messages", "prompt-completion", "llamafactory"])
def test_select_in_every_format(lalp, scores_file, tmp_path, fmt):
    is_folder = fmt == "llamafactory"
    out = tmp_path / ("data" if is_folder else "data.jsonl")
    options = ["--rule", "lalp", "--window", 2, "--out", out, "--format", fmt]
    done = lalp("select", scores_file, *options)
    assert done.out.split() == ["3", "100.0", "%", "Eve"]
    assert done.err == f"lalp: 3 responses written: {out}\n"
    records = json.loads((out / "train.json").read_text()) if is_folder else read_lines(out)
    chosen = [record for record in RECORDS if record["teacher"] == "Eve"]
    for record, source in zip(records, chosen, strict=True):
        turns = record.get("messages") or record["prompt"] + record["completion"]
        assert [turn["content"] for turn in turns] == [source["prompt"], source["response"]]
        assert (record["rule"], record["score"]) == ("lalp", -1.0)


@pytest.mark.parametrize(
    ("options", "teacher"),
    [
        ("--rule galp", "Ada"),
        ("--rule galp-lowest", "Eve"),
        ("--rule lalp-lowest --window 2", "Ada"),
        ("--rule lalp --window 25%", "Ada"),
        ("--rule random --like galp", "Ada"),
        ("--rule random --like lalp --window 2", "Eve"),
        ("--rule random --teacher Bob", "Bob"),
    ],
)
def test_select_by_every_rule(lalp, scores_file, tmp_path, options, teacher):
    done = lalp("select", scores_file, *options.split(), "--out", tmp_path / "t.jsonl", "--json")
    result = json.loads(done.out)
    assert result["num_selected"] == len(result["response_ids"]) == 3
    assert result["teacher_mix"] == {teacher: {"count": 3, "percent": 100}}
    assert result["left_out"] == {}


def test_select_within_limits(lalp, tmp_path):
    path, out = tmp_path / "levels.parquet", tmp_path / "t.jsonl"
    scores_frame(level=[1, 2, 3] * 3, num_tokens=[10, 20, 30] * 3).to_parquet(path, index=False)

    def chosen(options: str) -> list[str]:
        done = lalp("select", path, "--rule", "galp", "--out", out, "--json", *options.split())
        assert done.code == 0, done.err
        return [name[3:-2] for name in json.loads(done.out)["response_ids"]]

    assert chosen("--teacher Bob --teacher Eve") == ["Bob"] * 3
    assert chosen("--where level>=2 --where num_tokens<30") == ["Bob"] * 3
    assert chosen("--per-prompt 2 --min-score -2.02") == ["Ada", "Bob", "Ada", "Ada"]
    assert chosen("--per-prompt 3 --quota Ada=50%") == ["Ada", "Bob"] * 3
    assert chosen("--top 20%") == ["Ada"]
    assert chosen("--per-prompt 2 --top 20%/teacher") == ["Ada", "Bob"]
    assert chosen("--per-prompt 3 --max-tokens 35") == ["Ada"] * 3
    # Every limit holds for the control too.
    limits = "--per-prompt 2 --top 40% --max-tokens 50 --teacher Ada --teacher Bob"
    done = lalp("select", path, "--rule", "galp", "--out", out, *limits.split())
    assert "      30  response tokens\n" in done.out
    assert "responses beyond the top share" in done.out
    control = ["--rule", "random", "--like", "galp", "--out", out, "--json", *limits.split()]
    result = json.loads(lalp("select", path, *control).out)
    assert result["teacher_mix"]["Ada"]["count"] == 3
    assert result["num_tokens"] == 30


def test_select_writes_weights(lalp, scores_file, tmp_path):
    out = tmp_path / "t.jsonl"
    options = ["--rule", "galp", "--per-prompt", 2, "--weights", "--out", out]
    assert lalp("select", scores_file, *options).code == 0
    records = read_lines(out)
    # The third of each prompt scores one less than the second and two less than the first.
    assert [record["weight"] for record in records] == pytest.approx([4 / 3, 2 / 3] * 3, abs=0.01)
    assert len(load_pool(out).responses) == 6


def test_the_seed_and_the_rule_for_ties_decide_among_equal_scores(lalp, tmp_path):
    tokens = [9, 8, 7] * 3
    scores_frame(galp=-1.0, num_tokens=tokens).to_parquet(tmp_path / "ties.parquet")

    def chosen(*options: object) -> list[str]:
        command = ["select", tmp_path / "ties.parquet", "--out", tmp_path / "t.jsonl", "--json"]
        return json.loads(lalp(*command, *options).out)["response_ids"]

    first, again, *others = (chosen("--rule", "random", "--seed", seed) for seed in (1, 1, 2, 3, 4))
    assert first == again
    assert any(ids != first for ids in others)
    for tie, teacher in (("first", "Ada"), ("shortest", "Eve")):
        assert chosen("--rule", "galp", "--tie", tie) == [f"p{n}/{teacher}/0" for n in (1, 2, 3)]


# --- bad input --------------------------------------------------------------------------------

REFUSALS, MISTAKES = (
    yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    for name in ("refusals.yaml", "mistakes.yaml")
)


@pytest.fixture
def workplace(tmp_path, monkeypatch, pool_file, scores_file, model) -> Path:
    """A folder with good and bad files, as the current one."""
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(model)
    Path("folder").mkdir()
    Path("link.jsonl").symlink_to("pool.jsonl")
    lines = pool_file.read_text().splitlines(keepends=True)
    Path("bad.jsonl").write_text(lines[0] + '{"prompt_id": "p1", \n' + lines[1])
    Path("mine.jsonl").write_bytes(jsonl({"problem": "What is 1 + 1?", "answer": 2}))
    Path("steps.jsonl").write_text('{"response_id": "p1/Bob/0", "steps": [[0, 1]]}\n')
    make_mistaken_files(RECORDS[0], RECORDS[1])
    Path("base").mkdir()  # the student, but for its chat template
    for file in Path(model).iterdir():
        if file.suffix != ".jinja":
            Path("base", file.name).symlink_to(file)
    frame = scores_frame()
    frame.assign(correct=None).to_parquet("unverified.parquet")
    frame.drop(columns="galp").to_parquet("other.parquet")
    frame.drop(columns=["prompt", "response"]).to_parquet("bare.parquet")
    frame.loc[3, "galp"], frame["lalp@2"] = float("nan"), float("nan")
    frame.to_parquet("nan.parquet")
    return tmp_path


def make_mistaken_files(first: dict, second: dict) -> None:
    """Files as newcomers write them."""
    Path("empty.jsonl").touch()
    Path("field.jsonl").write_bytes(jsonl(without(first, "response") | {"respnse": "7"}))
    Path("nobody.jsonl").write_bytes(jsonl(without(first, "teacher")))
    Path("twice.jsonl").write_bytes(jsonl(*(r | {"response_id": "r"} for r in (first, second))))
    Path("prompts.jsonl").write_bytes(jsonl(first, second | {"prompt": "What else?"}))
    Path("asked.jsonl").write_bytes(jsonl({"prompt_id": "p1", "prompt": "What is 1 + 1?"}))
    Path("odd.csv").write_text("question,text,gold\nWhat is 1 + 1?,It is 2.,2\n")
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    Path("train.jsonl").write_bytes(jsonl({"messages": turns}))
    Path("recipe.yaml").write_text("epohcs: 3\n")


def without(record: dict, name: str) -> dict:
    return {key: value for key, value in record.items() if key != name}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", REFUSALS)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(lalp, workplace, command):
    before = contents(workplace)
    done = lalp(*command.split())
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch("lalp: .+\n", done.err)
    assert REFUSALS[command] in done.err
    assert contents(workplace) == before  # no output, no half of one, nothing temporary


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["mistake"])
def test_common_mistakes_are_told_with_what_where_and_what_to_do(lalp, workplace, mistake):
    before = contents(workplace)
    done = lalp(*shlex.split(mistake["command"]))
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    said = " ".join(re.sub("[─│╭╮╰╯]", " ", done.err).split())  # typer draws a box
    assert [part for part in ("what", "where", "do") if mistake[part] not in said] == []
    assert contents(workplace) == before


def test_thirty_mistakes_are_known():
    assert len({mistake["mistake"] for mistake in MISTAKES}) == len(MISTAKES) >= 30


# Every command that writes --out, with the inputs that it names.
WRITING = [
    "import pool.jsonl more.jsonl",
    "import pool.jsonl --bad-rows skip --rejects more.jsonl",
    "unsolved pool.jsonl more.jsonl",
    "merge pool.jsonl more.jsonl",
    "merge pool.jsonl more.jsonl --format messages",
    "segment pool.jsonl",
    "segment pool.jsonl --splitter steps.jsonl",
    "score pool.jsonl --student tiny --splitter steps.jsonl",
    "select scores.parquet --rule galp",
    "select scores.parquet --rule galp --format llamafactory",
    "show scores.parquet --response-id p1/Ada/0",
    "show pool.jsonl --prompt p1 --student tiny",
    "report pool.jsonl --student tiny",
    "sample pool.jsonl --model tiny",
    "train train.jsonl --student tiny --recipe recipe.yaml --held-out pool.jsonl",
    "eval --model tiny --benchmark mine.jsonl --data folder",
    "export llamafactory train.jsonl --student tiny --recipe recipe.yaml",
]


def words_that_name_files(command: str) -> list[str]:
    return [word for word in command.split() if Path(word).exists()]


@pytest.mark.parametrize("command", WRITING)
def test_no_command_writes_over_what_it_reads(lalp, workplace, command):
    for name in ("more.jsonl", "train.jsonl", "recipe.yaml"):
        Path(name).write_bytes(Path("pool.jsonl").read_bytes())
    before, inputs = contents(workplace), words_that_name_files(command)
    assert inputs
    for name in inputs:
        done = lalp(*command.split(), "--out", name)
        assert (done.code, done.out) == (2, ""), name
        assert f"--out {name}: is read too, and would be lost" in done.err
    assert contents(workplace) == before


def test_who_interrupts_hears_that_the_same_command_goes_on(lalp, pool_file, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pools, "merge_pools", stop)
    done = lalp("merge", pool_file, "--out", tmp_path / "out.jsonl")
    assert (done.code, done.out) == (130, "")
    assert done.err == "lalp: stopped: the same command goes on from what is finished\n"


def test_every_command_with_an_output_is_guarded():
    from lalp.paper.scale.__main__ import app as plan

    apps = [pools.app, scores.app, models.app, models.export, plan]
    commands = [command.callback for each in apps for command in each.registered_commands]
    writing = [each for each in commands if "out" in inspect.signature(each).parameters]
    assert len(writing) >= 11
    assert [each.__name__ for each in writing if not hasattr(each, "writes_out")] == []
    named = {each.__name__ for each in writing}
    tried = {
        command.split()[0].replace("eval", "evaluate").replace("import", "import_")
        for command in WRITING
    } | {"prompts"}
    assert named - {"tables_", "export_llamafactory"} <= tried


@pytest.mark.parametrize(
    "command",
    ["check", "chekc pool.jsonl", "check pool.jsonl --nonsense", "score pool.jsonl"],
)
def test_wrong_usage_is_code_2(lalp, workplace, command):
    done = lalp(*command.split())
    assert done.code == 2
    assert "Usage" in done.err


def test_help_names_every_command(lalp):
    named = lalp("--help").out
    commands = "check unsolved merge segment plan score teachers select show sample train eval"
    for command in [*commands.split(), "report", "compare", "export", "cache"]:
        assert command in named
        assert lalp(command, "--help").code == 0


def test_the_version(lalp):
    done = lalp("--version")
    assert (done.code, done.out, done.err) == (0, f"lalp {version('lalp')}\n", "")


def test_a_damaged_shard_is_reported_to_people(lalp, pool_file, model, tmp_path):
    out, store = tmp_path / "scores.parquet", tmp_path / "store"
    command = ["score", pool_file, "--student", model, "--out", out, "--quiet", "--store", store]
    assert lalp(*command).code == 0
    first, shard = out.read_bytes(), min(store.glob("*/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-30])
    done = lalp(*command)
    assert f"lalp: scoring again: shard {shard.name} cannot be used (" in done.err
    assert (done.code, out.read_bytes()) == (0, first)


def test_shards_are_scored_apart_and_merged(lalp, pool_file, model, tmp_path):
    score = ["score", pool_file, "--student", model, "--quiet", "--store", tmp_path / "store"]
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    parts = [tmp_path / f"{n}.parquet" for n in range(1, 9)]  # of three prompts: some hold none
    for number, path in enumerate(parts, 1):
        assert lalp(*score, "--shard", f"{number}/8", "--out", path).code == 0
    done = lalp("merge", *parts, "--out", out)
    assert (done.code, done.err) == (0, f"lalp: 9 responses written: {out}\n")
    lalp(*score, "--out", whole)
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert load_scores(out).attrs["scored_with"] == load_scores(whole).attrs["scored_with"]
    refused = lalp("merge", *parts, "--only-correct", "--out", tmp_path / "no.parquet")
    assert refused.code == 2
    assert "lalp select" in refused.err


# --- as a process -----------------------------------------------------------------------------


def test_a_process_ends_with_code_2_and_one_line(start, tmp_path):
    process = start("-m", "lalp.cli", "check", tmp_path / "none.jsonl")
    assert process.communicate() == (
        "",
        f"lalp: {tmp_path}/none.jsonl: no such file: check the path\n",
    )
    assert process.returncode == 2


def test_who_reads_only_the_first_steps_sees_no_traceback(start, tmp_path):
    many = [RECORDS[0] | {"prompt_id": f"q{n}", "response": "So it is. " * 2000} for n in range(20)]
    (tmp_path / "pool.jsonl").write_bytes(jsonl(*many))
    process = start("-m", "lalp.cli", "segment", tmp_path / "pool.jsonl", "--text")
    assert process.stdout.readline() == "q0/Ada/0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


def test_check_does_not_wait_for_torch(start, pool_file):
    code = (
        "import sys\nfrom lalp.cli import app\n"
        "try:\n    app.main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'scipy', 'seaborn'} & set(sys.modules)))"
    )
    out, messages = start("-c", code, "check", pool_file, "--json").communicate()
    assert out.splitlines()[-1] == "[]", messages
    assert json.loads(out.rpartition("\n[")[0])["num_responses"] == 9


def test_score_as_a_process_keeps_standard_output_clean(start, pool_file, model, tmp_path):
    out = tmp_path / "scores.parquet"
    options = ["--student", model, "--out", out, "--store", tmp_path / "store"]
    printed, messages = start("-m", "lalp.cli", "score", pool_file, *options).communicate()
    assert printed == ""
    assert messages.splitlines()[-1] == f"lalp: 9 responses scored: {out}"
    assert "tok/s" in messages  # the progress bar
    assert "lalp@4" in load_scores(out)  # the default window
