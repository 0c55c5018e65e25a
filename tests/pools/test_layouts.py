"""Every layout read in full, or refused with the mapping to give: one file for each data set."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.pools.importing import import_pool
from lalp.pools.layouts import LAYOUTS, MESSAGES, parse_mapping
from lalp.pools.pool import Message, Pool
from lalp.pools.reading import load_pool
from lalp.pools.writing import chat, save_pool
from tests.pools.builders import GOOD, REPLY, USER, exact, jsonl, refused, write

FILES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).parent.glob("layouts/*.yaml"))
}
DATA_SETS = [name for name, data in FILES.items() if "requests" not in data]


def expected(data):
    """Prompt, response and the rest of each record that a file says to expect."""
    for one in data["responses"]:
        prompt = one["prompt"]
        turns = [USER | {"content": prompt}] if isinstance(prompt, str) else prompt
        rest = one.get("teacher", "unknown"), one.get("correct"), one.get("extra", {})
        yield [turns, one.get("answer"), one["response"], *rest]


def got(pool):
    for one in pool.responses:
        prompt = pool.prompts[one.prompt_id]
        said = list(one.turns) or one.text
        more = dict(one.extra) | ({"tools": list(prompt.tools)} if prompt.tools else {})
        yield [chat(prompt.messages), prompt.answer, said, one.teacher, one.correct, more]


def read(data, tmp_path):
    """The pool of a file's rows, read from JSON lines as a command reads them."""
    paths = [write(tmp_path / "rows.jsonl", jsonl(*data["rows"]))]
    if "requests" in data:
        paths.append(write(tmp_path / "requests.jsonl", jsonl(*data["requests"])))
    return import_pool([str(path) for path in paths], all_turns=data.get("all_turns", False))


@pytest.mark.parametrize("name", FILES)
def test_a_layout_is_read_in_full_and_named(tmp_path, caplog, name):
    data = FILES[name]
    pool = read(data, tmp_path)
    assert list(got(pool)) == list(expected(data))
    assert pool.left_out == {}
    said = [record.message for record in caplog.records]
    if "layout" not in data:  # a pool's own
        assert said == []
        return
    *hints, line = said
    assert ["--all-turns" in hint for hint in hints] == [True] * bool(data.get("earlier"))
    counts = f"records, {len(data['responses'])} responses"
    assert line.startswith(f"{tmp_path}/rows.jsonl: read as {data['layout']}: ")
    assert counts in line
    thoughts = f"{data.get('thoughts', 0)} thoughts joined"
    assert (thoughts in line) == ("thoughts" in data) == ("joined" in line)
    assert ("of several turns" in line) == any(one.given for one in pool.responses)


def test_every_layout_has_a_file():
    assert set(LAYOUTS) - {data.get("layout") for data in FILES.values()} == {MESSAGES.name}


def leaves(value):
    """Every text of a value, without the white space around it and around marks of thought."""
    if isinstance(value, dict):
        return {leaf for item in value.values() for leaf in leaves(item)}
    if isinstance(value, list):
        return {leaf for item in value for leaf in leaves(item)}
    if not isinstance(value, str):
        return {json.dumps(value)} - {"null"}
    if value.startswith("{"):  # what a tool is asked may be JSON in a text
        return leaves(json.loads(value))
    for mark in ("begin_of_thought", "end_of_thought", "begin_of_solution", "end_of_solution"):
        value = value.replace(f"<|{mark}|>", "\0")
    return {part.strip() for part in value.split("\0") if part.strip()}


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_a_row_is_lost(tmp_path, name):
    pool = read(FILES[name], tmp_path)
    save_pool(pool, tmp_path / "pool.jsonl")
    kept = (tmp_path / "pool.jsonl").read_text(encoding="utf-8")
    roles = {"role", "user", "assistant", "system", "human", "gpt", "text", "thinking"}
    roles |= {"function_call", "observation"}
    for leaf in leaves(FILES[name]["rows"]) - roles:
        # Numbers and marks stand as they are; of texts what JSON makes of them.
        assert json.dumps(leaf, ensure_ascii=False).strip('"') in kept, leaf
    assert exact(load_pool(tmp_path / "pool.jsonl")) == exact(Pool(pool.prompts, pool.responses))


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_same_from_every_kind_of_source(tmp_path, name):
    data = FILES[name]
    whole = write(tmp_path / "rows.json", json.dumps(data["rows"], indent=1).encode())
    options = {"all_turns": data.get("all_turns", False)}
    assert list(got(import_pool([whole], **options))) == list(expected(data))
    assert list(got(import_pool([data["rows"]], **options))) == list(expected(data))
    if len(data["rows"]) == 1:  # rows of a table share their types
        frame = pd.DataFrame(data["rows"])
        frame.to_parquet(tmp_path / "rows.parquet")
        for source in (frame, tmp_path / "rows.parquet"):
            pool = import_pool([source], **options)
            texts = [one[:5] for one in got(pool)]  # nulls in objects come back otherwise
            assert texts == [one[:5] for one in expected(data)]


# --- What is refused ---------------------------------------------------------------------------

CHAT = [USER, REPLY]
OPENR1 = FILES["openr1_math"]["rows"][0]
LIGHTEVAL = FILES["lighteval"]["rows"][1]
LM_EVAL = FILES["lm_eval"]["rows"][0]
S1K = FILES["s1k"]["rows"][0]
BATCH = FILES["openai_batch"]["rows"][0]
SAYS = "say which: lalp import FILE --map"
TOOL = {"from": "observation", "value": "12"}
MARKED = "<|begin_of_thought|>a<|end_of_thought|>"
THINKS = REPLY | {"reasoning_content": "2 and 2."}
REFUSED = {
    "no known fields": ({"question": "q", "trace": "t"}, "--map prompt=question --map response="),
    "question and answer": ({"question": "q", "answer": "a"}, "--map response=answer"),
    "nothing at all": ({}, "the fields are none", "--map prompt=FIELD"),
    "messages and conversations": ({"messages": CHAT, "conversations": CHAT}, SAYS),
    "messages and generations": ({"messages": CHAT, "generations": ["4", "5"]}, SAYS),
    "two layouts": (S1K | {"deepseek_attempt": "a", "gemini_attempt": "b"}, SAYS),
    "thoughts of unknown use": (
        {"problem": "q", "solution": "s", "reasoning": "r"},
        "--map prompt=problem --map response=solution",
    ),
    "other messages": (OPENR1 | {"messages": CHAT}, "'messages' says something else", SAYS),
    "messages of another generation": (
        OPENR1 | {"messages": [OPENR1["messages"][0], REPLY]},
        "says something else",
    ),
    "a verdict too few": (
        OPENR1 | {"correctness_math_verify": [True]},
        "'correctness_math_verify' holds 1 items, but there are 2 responses",
    ),
    "a reason too many": (OPENR1 | {"finish_reasons": ["a"] * 3}, "'finish_reasons' holds 3"),
    "an empty generation": (OPENR1 | {"generations": ["a", ""]}, "item 2: field 'generations'"),
    "no generation": (OPENR1 | {"generations": []}, "'generations' holds no response"),
    "a list in a text": (OPENR1 | {"generations": "['a', 'b']"}, "must be a list"),
    "one verdict for two": (
        OPENR1 | {"correct": True},
        "'correct' is one verdict, but there are 2",
    ),
    "no verdict": (OPENR1 | {"correctness_math_verify": ["maybe", True]}, "must be a verdict"),
    "two thoughts": (S1K | {"thinking_trajectories": ["a", "b"]}, "2 thoughts, but there are 1"),
    "a thought twice": (S1K | {"attempt": "<think>a</think>b"}, "<think> marks"),
    "a thought only": ({"messages": [USER, THINKS | {"content": None}]}, "'content' is null"),
    "two other thoughts": ({"messages": [USER, THINKS | {"thinking": "x"}]}, "different thoughts"),
    "a user's thought": ({"messages": [THINKS | USER, REPLY]}, "a user turn holds a thought"),
    "an image": (
        {"messages": [USER | {"content": [{"type": "image_url"}]}, REPLY]},
        "part 1 of the content is no text but 'image_url'",
    ),
    "a tool's turn": ({"conversations": [USER, TOOL, REPLY]}, "the turn is a tool's"),
    "a call": (
        {"conversations": [USER, REPLY | {"tool_calls": [1]}]},
        "message 2: tool call 1: must be an object with name and arguments",
    ),
    "the last turn asks": ({"conversations": [USER, REPLY, USER]}, "must end with the assistant"),
    "two systems": (
        {"system": "a", "conversations": [{"from": "system", "value": "b"}, *CHAT]},
        "'system' differs from the chat's system turn",
    ),
    "half the marks": (
        {"conversations": [USER, REPLY | {"content": MARKED}]},
        "marks are not those of one thought and one solution",
    ),
    "a history of texts": ({"instruction": "i", "output": "o", "history": ["x"]}, "pairs of"),
    "a choice's likelihoods": (LM_EVAL | {"resps": [[[-1.5, True]]]}, "'resps' must be text"),
    "two requests": (
        LM_EVAL | {"arguments": [["a", {}], ["b", {}]], "resps": [["x"], ["y"]]},
        "does not hold one request",
    ),
    "a rendered prompt": (
        LM_EVAL | {"arguments": [["<|im_start|>user\nq", {}]]},
        "lalp import FILE --map prompt=doc.question --map response=resps",
    ),
    "examples in the prompt": (
        LIGHTEVAL | {"doc": LIGHTEVAL["doc"] | {"fewshot_samples": [{"query": "x"}]}},
        "lalp import FILE --map prompt=doc.query --map response=model_response.text",
    ),
    "a batch without its requests": (BATCH, "lalp import OUTPUT REQUESTS --out POOL"),
    "a failed request": (BATCH | {"response": None, "error": {"code": "late"}}, "late"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_or_guess_something_is_refused(tmp_path, name):
    record, *fragments = REFUSED[name]
    path = write(tmp_path / "p.jsonl", jsonl(record))
    with refused(f"{path}, line 1: ", *fragments):
        load_pool(path)


def test_a_file_has_one_layout(tmp_path):
    limo, own = FILES["limo"]["rows"][0], {"messages": CHAT}
    for first, second in ((limo, own), (own, FILES["lark"]["rows"][0])):
        path = write(tmp_path / "p.jsonl", jsonl(first, second))
        with refused("line 2: laid out as", "but the first one as", "files of their own"):
            load_pool(path)


def test_a_table_of_no_known_columns_names_the_likeliest_mapping(tmp_path):
    pd.DataFrame({"task": ["q"], "completion": ["a"]}).to_parquet(tmp_path / "p.parquet")
    with refused("p.parquet: no column 'prompt_id'", "--map prompt=task --map response=completion"):
        load_pool(tmp_path / "p.parquet")


def test_a_pool_of_its_own_stays_strict_and_says_what_fills_it_in():
    del (lacking := dict(GOOD))["teacher"]
    with refused("row 1: field 'teacher' is missing; lalp import FILE"):
        load_pool([lacking])
    (response,) = import_pool([[lacking]], teacher="ada").responses
    assert response == load_pool([GOOD]).responses[0]


def test_names_of_metrics_where_a_layout_knows_their_values():
    """A record of lighteval's in which metrics are a list of names, not their values."""
    record = FILES["lighteval_of_old"]["rows"][0] | {"metrics": ["exact_match"]}
    (response,) = load_pool([record]).responses
    assert response.extra["metrics"] == ["exact_match"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_two_data_sets_in_one_record_are_read_in_full_or_refused(data):
    """A record with the fields of two data sets: what is read holds every text of both."""
    names = st.sampled_from(DATA_SETS)
    one, other = (FILES[data.draw(names)]["rows"][0] for _ in range(2))
    record = json.loads(json.dumps(other | one))
    dropped = data.draw(st.sets(st.sampled_from(sorted(record)), max_size=2))
    record = {name: value for name, value in record.items() if name not in dropped}
    logging.getLogger("lalp").setLevel(logging.ERROR)
    try:
        pool = load_pool([record])
    except InputError:
        return
    finally:
        logging.getLogger("lalp").setLevel(logging.NOTSET)
    kept = json.dumps([list(got(pool)), [one.response_id for one in pool.responses]])
    roles = {"user", "assistant", "system", "human", "gpt", "text", "function_call", "observation"}
    for leaf in leaves(record) - roles:
        assert json.dumps(leaf).strip('"') in kept, (leaf, record)


# --- A mapping by hand -------------------------------------------------------------------------

TABLE = {"task": "2 + 3?", "traces": ["5", "6"], "gold": 5, "by": "ada", "ok": [1, 0], "answer": 1}


def test_a_mapping_by_hand():
    given = ["prompt=task", "response=traces", "answer=gold", "teacher=by", "correct=ok"]
    pool = import_pool([[TABLE]], mapping=parse_mapping(given))
    (prompt,) = pool.prompts.values()
    assert (prompt.messages, prompt.answer) == ((Message("user", "2 + 3?"),), "5")
    told = [(one.text, one.teacher, one.correct, one.extra) for one in pool.responses]
    rest = [{"ok": n, "original_answer": 1} for n in (1, 0)]
    assert told == [("5", "ada", True, rest[0]), ("6", "ada", False, rest[1])]


def test_a_mapping_on_top_of_a_layout():
    row = FILES["openr1_math"]["rows"][0]
    mapping = {"answer": "solution", "teacher": "problem_type"}
    pool = import_pool([[row]], mapping=mapping)
    assert [prompt.answer for prompt in pool.prompts.values()] == ["Count on your fingers."]
    assert [(one.teacher, one.correct) for one in pool.responses] == [
        ("Algebra", True),
        ("Algebra", False),
    ]
    own = import_pool([[{"messages": CHAT, "by": "ada"}]], mapping={"teacher": "by"})
    assert own.responses[0].teacher == "ada"


def test_what_is_mapped_is_not_read_by_its_name_too():
    mapping = {"prompt": "question", "response": "answer"}
    pool = import_pool([[{"question": "q", "answer": "a"}]], mapping=mapping)
    assert [prompt.answer for prompt in pool.prompts.values()] == [None]


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (["prompt"], "--map prompt: give TARGET=FIELD; targets are prompt, response"),
        (["question=prompt"], "--map question=prompt: give TARGET=FIELD"),
        (["prompt=a", "prompt=b"], "prompt is given twice"),
        (["messages=a", "prompt=b"], "stands for prompt and response"),
    ],
)
def test_a_mapping_that_is_none(given, fragment):
    with refused(fragment):
        parse_mapping(given)


@pytest.mark.parametrize(
    ("mapping", "fragment"),
    [
        ({"prompt": "task", "response": "trace"}, "row 1: field 'trace' is missing or null"),
        (
            {"prompt": "task", "response": "traces", "answer": "glod"},
            "--map answer=glod: no record",
        ),
        ({"prompt": "task", "response": "gold"}, "'gold' must be text, not 5"),
        ({"prompt": "task", "response": "traces", "correct": "by"}, "'by' is one verdict"),
    ],
)
def test_a_mapping_of_fields_that_do_not_fit(mapping, fragment):
    with refused(fragment):
        import_pool([[TABLE]], mapping=mapping)
