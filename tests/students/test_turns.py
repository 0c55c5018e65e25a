"""Responses of several turns: one text for every template, whose own text is the oracle."""

from __future__ import annotations

import json

import pytest

from lalp.errors import InputError
from lalp.pools.conversation import join_turns
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.students.encoding import end_of_turn, render_prompt
from lalp.students.templates import apply_template
from lalp.students.thinking import PLAIN, shape_response, shape_thinking, thought_form
from lalp.students.turns import write_turns
from lalp.training.examples import IGNORED, make_example
from tests.students.test_one_text import ASKED, TEMPLATES, exported_ids, scored_ids, tokenizer_of
from tests.tiny import train_tokenizer

CALL = {
    "id": "callabcde",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}},
}
AGENT = (
    {"role": "assistant", "content": "I look it up.", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "callabcde", "content": "21 degrees"},
    {"role": "assistant", "content": "It is warm."},
)
SILENT = ({**AGENT[0], "content": ""}, *AGENT[1:])
TALK = (
    {"role": "assistant", "content": "Is it 5?"},
    {"role": "user", "content": "Higher."},
    {"role": "assistant", "content": "Is it 7?"},
)
KINDS = {"agent": AGENT, "silent agent": SILENT, "talk": TALK}


def made(turns, **fields):
    text, given = join_turns(turns)
    return Response("r", "p", "Ada", text, turns=turns, given=given, **fields)


def tokenizer_with(template):
    tokenizer = train_tokenizer(["It is warm. <think>\n</think>\n\n"], 320, TEMPLATES[template])
    tokenizer.bos_token = "<|system|>"
    return tokenizer


# Those that read pictures take no text as content.
OF_TEXT = [name for name in TEMPLATES if name not in ("idefics3", "llava_next", "smolvlm")]


@pytest.mark.parametrize("name", OF_TEXT)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_turns_is_lost_whatever_the_template(name, kind):
    text, given = write_turns(tokenizer_with(name), KINDS[kind])
    said = [turn for turn in KINDS[kind] if turn["role"] == "assistant"]
    ends = [0, *(place for span in given for place in span), len(text)]
    parts = [text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True)]
    assert [turn["content"] for turn in said] == [
        part[: len(turn["content"])] for turn, part in zip(said, parts, strict=True)
    ]
    if kind != "talk":
        assert all(word in parts[0] for word in ("weather", "city", "Oslo", "2"))
    ((begin, end),) = given
    assert KINDS[kind][1]["content"] in text[begin:end]


# Templates that write such a chat as one text, whatever stands behind a turn: the others drop
# words beside a call, or write a thought before an answer that is given.
WHOLE = {
    "agent": "qwen2_5 qwen3_instruct_2507 qwen3_vl lfm2_2_5 lfm2_v2 glm4moe",
    "silent agent": "qwen2_5 qwen3_instruct_2507 qwen3_vl lfm2_2_5 llama3_1 gemma4_v3",
    "talk": "qwen2_5 qwen3_instruct_2507 llama3 llama3_1 gemma gemma3 phi3 lfm2",
}


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k, names in WHOLE.items() for n in names.split()]
)
def test_the_text_is_the_template_s_own(kind, name):
    tokenizer = tokenizer_with(name)
    asked = render_prompt(tokenizer, Prompt("p", (ASKED,)))
    text, _ = write_turns(tokenizer, KINDS[kind])
    chat = [{"role": "user", "content": ASKED.content}, *KINDS[kind]]
    written = apply_template(tokenizer, chat)
    if name == "glm4moe":  # it closes a thought that its prompt does not open
        written = written.replace("\n<think></think>\n", "")
    assert written.startswith(asked + text)
    assert len(written) - len(asked + text) < 20  # the end of the turn


@pytest.mark.parametrize("family", ["qwen2_5", "deepseek_r1_distill", "qwen3_6", "gptoss", "base"])
@pytest.mark.parametrize("kind", KINDS)
def test_scoring_training_and_export_have_the_same_tokens(family, kind, tmp_path):
    tokenizer = tokenizer_of(family)
    prompt = Prompt("p", (ASKED,))
    pool = Pool({"p": prompt}, (made(KINDS[kind]),))
    ((asked, ids),) = scored_ids(tokenizer, pool).values()
    end = end_of_turn(tokenizer)
    example = make_example(tokenizer, prompt, pool.responses[0], 10_000, end)
    assert example.input_ids == (*asked, *ids, *end)
    for fmt in ("messages", "prompt-completion"):
        assert exported_ids(tokenizer, pool, tmp_path, fmt) == {"r": example.input_ids}


def test_the_end_of_every_turn_is_learned_and_what_others_say_is_not():
    tokenizer = tokenizer_with("qwen2_5")
    example = make_example(
        tokenizer, Prompt("p", (ASKED,)), made(AGENT), 10_000, end_of_turn(tokenizer)
    )
    learned = [token for token in example.labels if token != IGNORED]
    assert example.num_tokens == len(learned)
    call = json.dumps({"name": "weather", "arguments": {"city": "Oslo", "days": 2}})
    assert tokenizer.decode(learned) == (
        f"I look it up.\n<tool_call>\n{call}\n</tool_call><|im_end|>\nIt is warm.<|im_end|>\n"
    )
    cut = make_example(tokenizer, Prompt("p", (ASKED,)), made(AGENT), 60, end_of_turn(tokenizer))
    assert cut.cut and len(cut.input_ids) == len(cut.labels) == 60


def test_a_call_that_ends_in_a_token_of_its_own_is_learned_with_it():
    tokenizer = tokenizer_with("gptoss")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|call|>", "<|return|>"]})
    example = make_example(
        tokenizer, Prompt("p", (ASKED,)), made(AGENT), 10_000, end_of_turn(tokenizer)
    )
    learned = tokenizer.decode([token for token in example.labels if token != IGNORED])
    assert '"days": 2}<|call|>It is warm.' in learned


def test_a_thought_of_each_turn_is_joined_as_the_student_joins_it():
    first = AGENT[0] | {"content": PLAIN.join("Is it warm?", "I look.")}
    last = AGENT[2] | {"content": PLAIN.join("21 is warm.", "Yes.")}
    turns = (first, AGENT[1], last)
    tokenizer = tokenizer_with("gptoss")
    form = thought_form(tokenizer)
    assert form != PLAIN
    text = shape_response(made(turns), "join", tokenizer).text
    assert form.join("Is it warm?", "I look.") in text
    assert text.endswith(form.join("21 is warm.", "Yes."))
    dropped = shape_response(made(turns), "drop", tokenizer)
    assert "Is it warm?" not in dropped.text and "I look." in dropped.text
    assert [turn["content"] for turn in dropped.turns] == ["I look.", "21 degrees", "Yes."]
    # In a template that opens thoughts, each turn's is opened once.
    opened = shape_response(made(turns), "join", tokenizer_with("qwen3_6")).text
    assert opened.count("<think>") == 2 and "<think>\n<think>" not in opened


def test_thoughts_alone_are_refused_of_several_turns():
    pool = Pool({"p": Prompt("p", (ASKED,))}, (made(TALK),))
    with pytest.raises(InputError, match="response 'r' has several turns, whose thoughts alone"):
        shape_thinking(pool, "only")


def test_a_template_that_refuses_what_stands_between_says_so():
    tokenizer = tokenizer_with("gemma")
    turns = (TALK[0], {"role": "system", "content": "Be short."}, TALK[2])
    with pytest.raises(
        InputError, match="response 'r': the student's chat template refuses a resp"
    ):
        shape_response(made(turns), "join", tokenizer)


def test_the_tools_of_a_prompt_are_in_its_text_and_its_id():
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    record = {"messages": [{"role": "user", "content": "Warm?"}, *AGENT]}
    plain, offered = load_pool([record]), load_pool([record | {"tools": json.dumps(tools)}])
    (prompt,) = offered.prompts.values()
    assert prompt.tools == tuple(tools) and not offered.responses[0].extra
    assert plain.prompts.keys() != offered.prompts.keys()
    assert '"name": "weather"' in render_prompt(tokenizer_with("qwen2_5"), prompt)
    assert Message("user", "Warm?") == prompt.messages[-1]
    # What is no definition stays what it is: a field of the user's own.
    other = load_pool([record | {"tools": "a calculator"}])
    assert other.responses[0].extra == {"tools": "a calculator"}
