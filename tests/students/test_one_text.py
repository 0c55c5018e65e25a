"""Scoring, training, sampling and export read one text, whatever the student's template does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import trl

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.writing import write_training
from lalp.sampling import samples
from lalp.sampling.settings import Sampling
from lalp.scoring.groups import group_responses, make_tasks
from lalp.students.encoding import end_of_turn
from lalp.students.templates import apply_template
from lalp.students.thinking import PLAIN, join_as_student, shape_thinking, thought_form
from lalp.training.examples import load_examples, make_example
from tests.tiny import train_tokenizer

# The chat templates of real families, as trl ships them to compare with.
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
# What each stands for.
FAMILIES = {
    "qwen2_5": "adds a system prompt of its own",
    "deepseek_r1_distill": "opens the thought itself, and strips those of earlier turns",
    "qwen3_6": "opens the thought itself",
    "qwen3": "strips the thoughts of earlier turns",
    "qwen3_5_nothink": "opens an empty thought",
    "llama3": "writes its beginning-of-sequence token",
    "gemma3": "writes it, too, and has another name for the assistant",
    "gemma": "refuses system messages",
    "gptoss": "joins thought and answer with tokens of its own",
    "glm4moe": "joins them with other white space",
    "nemotron_3_nano": "opens the thought, and has other white space",
    "phi3": "knows nothing of thoughts",
    "base": "there is none",
}
ANSWER = "So 3 + 4 = 7.\n\nIt is 7."
TEXTS = {
    "plain": ANSWER,
    "joined": PLAIN.join("We add.\n\nTwo steps.", ANSWER),
    "a tag of its own": f"<think>We add.</think>{ANSWER}",
    "the end of a thought alone": f"We add.\n</think>\n\n{ANSWER}",
}
ASKED = Message("user", "What is 3 + 4?")
EARLIER = (
    Message("user", "Hello"),
    Message("assistant", PLAIN.join("Who is it?", "Good day.")),
    ASKED,
)
CHATS = {
    "a question": (ASKED,),
    "a system message": (Message("system", "Be short."), ASKED),
    "earlier turns": EARLIER,
}


def tokenizer_of(family):
    tokenizer = train_tokenizer([ANSWER, "<think>\n</think>\n\n"], 320, TEMPLATES.get(family))
    tokenizer.bos_token = "<|system|>"
    return tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return tokenizer_of(request.param)


def made_pool(chat):
    prompt = Prompt("p", CHATS[chat])
    return Pool({"p": prompt}, tuple(Response(n, "p", "Ada", t) for n, t in TEXTS.items()))


def scored_ids(tokenizer, pool):
    (group,) = group_responses(pool, tokenizer)
    tasks = make_tasks(group, tokenizer, 10_000)
    return {
        response.response_id: (task.encoded.prompt_ids, task.encoded.response_ids)
        for response, task in zip(group.responses, tasks, strict=True)
    }


def trained_ids(tokenizer, pairs):
    end = end_of_turn(tokenizer)
    return {r.response_id: make_example(tokenizer, p, r, 10_000, end).input_ids for p, r in pairs}


def drawn_ids(tokenizer, pool):
    model = SimpleNamespace(tokenizer=tokenizer, max_positions=10_000, name="tiny")
    source = samples._Source(model, frozenset(), "")
    jobs = samples._plan(list(pool.prompts.values()), source, [Sampling(max_tokens=4)], None)
    return jobs[0].request.prompt_ids


def exported_ids(tokenizer, pool, folder, fmt):
    out = folder / "train.jsonl"
    write_training(pool, [r.response_id for r in pool.responses], out, fmt)
    pairs = load_examples(out)
    names = [r.response_id for r in pool.responses]
    return dict(zip(names, trained_ids(tokenizer, pairs).values(), strict=True))


@pytest.mark.parametrize("chat", CHATS)
def test_the_four_have_the_same_tokens(tokenizer, chat, tmp_path):
    pool = made_pool(chat)
    try:
        scored = scored_ids(tokenizer, pool)
    except InputError as error:  # all four refuse it
        assert chat == "a system message" and "template refuses" in str(error)
        pairs = [(pool.prompts["p"], r) for r in pool.responses]
        for read in (lambda: trained_ids(tokenizer, pairs), lambda: drawn_ids(tokenizer, pool)):
            with pytest.raises(InputError, match="template refuses"):
                read()
        return
    end = end_of_turn(tokenizer)
    whole = {name: (*asked, *answer, *end) for name, (asked, answer) in scored.items()}
    assert {asked for asked, _ in scored.values()} == {drawn_ids(tokenizer, pool)}
    assert trained_ids(tokenizer, [(pool.prompts["p"], r) for r in pool.responses]) == whole
    for fmt in ("messages", "prompt-completion"):
        assert exported_ids(tokenizer, pool, tmp_path, fmt) == whole


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("base",)])
def test_a_thought_is_read_as_the_template_itself_writes_it(family):
    # The template's own text of a chat with the thought in a field of its own.
    tokenizer = tokenizer_of(family)
    thought, answer = "We add.\n\nTwo steps.", "It is 7."
    pool = Pool(
        {"p": Prompt("p", (ASKED,))}, (Response("r", "p", "Ada", PLAIN.join(thought, answer)),)
    )
    ((asked, ids),) = scored_ids(tokenizer, pool).values()
    read = tokenizer.decode([*asked, *ids, *end_of_turn(tokenizer)])
    turn = {"role": "assistant", "content": answer}
    turn["thinking" if family == "gptoss" else "reasoning_content"] = thought
    chat = [{"role": "user", "content": ASKED.content}, turn]
    written = apply_template(tokenizer, chat)
    if thought not in written:  # it knows no thoughts, or drops them: the pool's form stays
        assert PLAIN.join(thought, answer).removeprefix("<think>\n") in read
    elif family == "qwen3_5_nothink":  # a thought behind the empty one that its prompt ends in
        assert read.count("<think>") == 2 and thought_form(tokenizer) == PLAIN
    else:  # some write no end of the turn, which must be trained on
        assert read in (written, f"{written}{tokenizer.eos_token}")


def test_an_opened_thought_is_not_opened_twice():
    for family in ("deepseek_r1_distill", "qwen3_6", "nemotron_3_nano"):
        tokenizer = tokenizer_of(family)
        pool = made_pool("a question")
        for name, (asked, ids) in scored_ids(tokenizer, pool).items():
            assert tokenizer.decode([*asked, *ids]).count("<think>") == 1, (family, name)


def test_every_template_is_read_or_refused_in_a_line():
    forms = {}
    for name, template in TEMPLATES.items():
        tokenizer = train_tokenizer(["a"], 280, template)
        form = thought_form(tokenizer)
        assert len(form.before) < 60 and len(form.between) < 70
        # Not the Python or JSON of a message's parts.
        assert "type" not in form.before + form.between, name
        forms[name] = form
    assert forms["gptoss"].before == "<|channel|>analysis<|message|>"
    assert forms["lfm2"] == forms["llama3"] == forms["base" if "base" in forms else "phi3"] == PLAIN


@pytest.mark.parametrize(
    ("thinking", "text", "left"),
    [
        ("only", PLAIN.join("We add.", "7"), "<think>\nWe add.\n</think>"),
        ("drop", PLAIN.join("We add.", "7"), "7"),
        ("only", "We add.</think>7", "We add.</think>"),
        ("drop", "We add.</think>7", "7"),
        ("drop", "It is 7.", "It is 7."),
        ("drop", "[THINK]We add.[/THINK] 7", "7"),
        ("drop", "◁think▷We add.◁/think▷ 7", "7"),
        ("drop", "<think>a</think> b </think>\n7", "7"),
        ("join", PLAIN.join("We add.", "7"), PLAIN.join("We add.", "7")),
    ],
)
def test_thoughts_are_kept_alone_or_dropped(thinking, text, left):
    pool = Pool({"p": Prompt("p", (ASKED,))}, (Response("r", "p", "Ada", text),))
    assert shape_thinking(pool, thinking).responses[0].text == left


@pytest.mark.parametrize(
    ("thinking", "text", "says"),
    [
        ("only", "It is 7.", "response 'r' has no thought: leave it out"),
        ("drop", "<think>We add.</think>\n", "response 'r' has no answer behind its thought"),
        ("keep", "It is 7.", "thinking is join, only, drop, not 'keep'"),
    ],
)
def test_what_leaves_nothing_is_refused(thinking, text, says):
    pool = Pool({"p": Prompt("p", (ASKED,))}, (Response("r", "p", "Ada", text),))
    with pytest.raises(InputError, match=says):
        shape_thinking(pool, thinking)


def test_a_student_s_own_form_is_not_joined_twice():
    tokenizer = tokenizer_of("gptoss")
    once = join_as_student(tokenizer, TEXTS["joined"])
    assert once != TEXTS["joined"] and join_as_student(tokenizer, once) == once


def test_a_field_of_thoughts_reaches_the_student_in_its_form(tmp_path):
    record = {"role": "assistant", "reasoning_content": "We add.", "content": "It is 7."}
    chat = [{"role": "user", "content": "What is 3 + 4?"}, record]
    (tmp_path / "pool.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    pool = load_pool(tmp_path / "pool.jsonl")
    (response,) = shape_thinking(pool, "join", tokenizer_of("gptoss")).responses
    assert response.text.startswith("<|channel|>analysis<|message|>We add.<|end|>")
