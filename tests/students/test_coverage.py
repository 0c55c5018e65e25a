"""Every token in one step, every character in a token: tokenizers of many kinds, tags, and ends."""

from __future__ import annotations

import copy
import logging

import pytest
from conftest import CHAT_TEMPLATE, TRAINING_TEXT, build_student, separate_pass, spans_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.sampling.decoding import Request, decode, response_text
from lalp.sampling.settings import Sampling
from lalp.scoring.run import score
from lalp.steps.sentences import SPLITTERS
from lalp.students.encoding import (
    assign_steps,
    encode,
    end_of_turn,
    own_span,
    render_prompt,
    tokenizer_notes,
)
from lalp.training.examples import make_example

PROMPT = Prompt("p", (Message("user", "What is 3 times 4?"),), "12")
THINKING = CHAT_TEMPLATE.replace("<|assistant|>\n{% endif", "<|assistant|>\n<think>\n{% endif")
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def make(model, trainer, pre_tokenizer=None, normalizer=None, post_processor=None, **names):
    backend = Tokenizer(model)
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer:
        backend.normalizer = normalizer
    if trainer:
        backend.train_from_iterator(TRAINING_TEXT, trainer)
    if post_processor:
        backend.post_processor = post_processor
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def byte_level(trim: bool = True, alphabet: list[str] = ALPHABET) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet)
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    post = processors.ByteLevel(trim_offsets=trim)
    return make(models.BPE(), trainer, split, post_processor=post, eos_token="<|end|>")


def sentencepiece(byte_fallback: bool) -> PreTrainedTokenizerFast:
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=["<unk>", "<s>", *tokens])
    model = models.BPE(byte_fallback=byte_fallback, unk_token="<unk>")
    split = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    post = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return make(model, trainer, split, post_processor=post, bos_token="<s>", unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerFast:
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"])
    split = pre_tokenizers.BertPreTokenizer()
    model = models.WordPiece(unk_token="[UNK]")
    return make(model, trainer, split, normalizers.BertNormalizer(), unk_token="[UNK]")


def unigram() -> PreTrainedTokenizerFast:
    pieces = [("<unk>", 0.0), *((c, -2.0) for c in "▁WeadThnx=3."), ("▁Then", -1.0)]
    return make(models.Unigram(pieces, unk_id=0), None, pre_tokenizers.Metaspace())


KINDS = {
    "byte-level": byte_level(trim=False),
    "trimmed": byte_level(),
    "some bytes": byte_level(alphabet=[]),
    "byte fallback": sentencepiece(True),
    "no bytes": sentencepiece(False),
    "words": word_piece(),
    "unigram": unigram(),
}
TEXTS = st.text(st.sampled_from("We add. Then x=3\n  \té²\u0301🙂E"), min_size=1, max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(text=TEXTS, prompt_text=st.sampled_from(["", "We add ", "x.\n\n"]))
def test_every_token_is_in_one_step_and_every_character_in_a_token(kind, text, prompt_text):
    tokenizer = KINDS[kind]
    encoded = encode(tokenizer, prompt_text, text)
    for split in SPLITTERS.values():
        spans = assign_steps(text, encoded.offsets, split(text))
        assert spans == list(spans_of([end - start for start, end in spans]))
        assert spans[-1][1] == len(encoded.response_ids)
    covered = {i for start, end in encoded.offsets for i in range(start, end)}
    first = encoded.offsets[0][0] if encoded.offsets else len(text)
    if not encoded.lost and encoded.offsets:
        # Only some vocabularies hold white space.
        unread = {i for i in range(first, len(text)) if text[i].isspace()} - covered
        assert covered | unread == set(range(first, len(text)))
        assert not unread or kind not in ("byte-level", "trimmed")
    if kind in ("byte-level", "trimmed", "byte fallback"):
        assert not encoded.lost
    elif set("²🙂") & set(text):
        assert "has no token for" in encoded.lost


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, prompt_text=st.sampled_from(["We add ", "x.\n\n"]))
def test_trimmed_spans_are_those_that_are_not_trimmed(text, prompt_text):
    trimmed, plain = (encode(KINDS[kind], prompt_text, text) for kind in ("trimmed", "byte-level"))
    assert trimmed.response_ids == plain.response_ids
    steps = SPLITTERS["sentences"](text)
    assert assign_steps(text, trimmed.offsets, steps) == assign_steps(text, plain.offsets, steps)


@pytest.mark.parametrize("kind", ["trimmed", "some bytes", "no bytes", "words"])
def test_a_shard_is_read_back_whatever_the_tokenizer_drops(kind, tmp_path, caplog):
    student = build_student("llama", KINDS[kind])
    texts = ["We add.  Then x = 3.   ", "Then x² = 3. 🙂", "²", "Then 3.", "We add."]
    rows = [{"prompt_id": "p", "prompt": "3?", "teacher": "Ada", "response": t} for t in texts]
    options = {"with_tokens": True, "store": tmp_path, "progress": False}
    first = score(load_pool(rows), student, ["0"], **options)
    (path,) = tmp_path.glob("*/*.parquet")
    written = path.stat().st_mtime_ns
    again = score(load_pool(rows), student, ["0"], **options)
    assert path.stat().st_mtime_ns == written and "scoring again" not in caplog.text
    names = ["num_tokens", "num_steps", "galp", "lalp@0", "reason"]
    assert again[names].equals(first[names])
    # LALP weighs the tokens that GALP counts, those of trailing spaces too.
    assert [len(steps) for steps in first["token_steps"]] == first["num_tokens"].tolist()
    lost = first["reason"].fillna("").str.contains("has no token for")
    assert lost.tolist()[1:3] == [kind != "trimmed"] * 2 and not lost[0] and not lost[4]
    assert first.loc[lost, ["galp", "lalp@0"]].isna().all(axis=None)


def test_training_refuses_what_the_tokenizer_drops():
    tokenizer = sentencepiece(False)
    with pytest.raises(InputError, match=r"response 'r': .* no token for '²' \(U\+00B2\)"):
        make_example(tokenizer, PROMPT, Response("r", "p", "Ada", "x² = 3"), 100, (1,))


def test_a_tokenizer_that_drops_or_changes_texts_is_said(tokenizer):
    assert tokenizer_notes(tokenizer) == tokenizer_notes(KINDS["trimmed"]) == []
    for kind in ("some bytes", "no bytes", "words", "unigram"):
        assert "has no token for" in tokenizer_notes(KINDS[kind])[0]
    lower = copy.deepcopy(tokenizer)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "changes texts before it reads them" in tokenizer_notes(lower)[0]


# --- one tag, one end -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt_end", "response", "left"),
    [
        ("<think>\n", "<think>\nWe add.", "We add."),
        ("<think>\n", "<think>We add.", "We add."),
        ("<think>\n", "\n<think>\n\nWe add.", "\nWe add."),
        ("<think>", "<think>\nWe add.", "\nWe add."),
        ("[THINK]", "[THINK]We add.", "We add."),
        ("<think>\n\n</think>\n\n", "<think>\n</think>\n\nWe add.", "We add."),
        *((end, "<think>\nWe add.", None) for end in ("", "<think>\n\n</think>\n\n", "</think>")),
        ("<think>\n", "We <think>\n add.", None),
        ("", "We add.<|end|>\n", "We add."),
        ("", "Write <|end|> last.", None),
    ],
)
def test_what_the_template_writes_is_not_the_responses(prompt_end, response, left, tokenizer):
    text = "<|user|>\n3?<|end|>\n<|assistant|>\n" + prompt_end
    begin, end = own_span(tokenizer, text, response)
    assert response[begin:end] == (response if left is None else left)
    encoded, alone = encode(tokenizer, text, response), encode(tokenizer, text, response[begin:end])
    assert (encoded.prompt_ids, encoded.response_ids) == (alone.prompt_ids, alone.response_ids)
    assert encoded.offsets == tuple((a + begin, b + begin) for a, b in alone.offsets)


def test_a_thought_is_opened_once_in_scores_training_and_sampling(tokenizer, tmp_path):
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = THINKING
    student = build_student("llama", thinking)
    prompt_ids = encode(thinking, render_prompt(thinking, PROMPT), "").prompt_ids
    requests = [Request(prompt_ids, Sampling(1, 1.0, max_tokens=3), 3, seed) for seed in range(80)]
    outputs, text = decode(student, requests, frozenset({3})), render_prompt(thinking, PROMPT)
    checked = 0
    for output in outputs:
        ids = output.token_ids[: len(output.token_ids) - output.ended]
        sampled = response_text(thinking, text, output)
        encoded = encode(thinking, text, sampled)
        if not ids or encoded.response_ids != ids:
            continue  # other tokens that spell the same text
        checked += 1
        assert sampled.startswith("<think>\n") and encoded.prompt_ids == prompt_ids
        example = make_example(thinking, PROMPT, Response("r", "p", "Ada", sampled), 99, (3,))
        assert example.input_ids == (*prompt_ids, *ids, 3)
        for shown in (sampled, sampled + "<|end|>\n", sampled.removeprefix("<think>\n")):
            row = {"prompt_id": "p", "prompt": PROMPT.messages[0].content, "teacher": "Ada"}
            pool = load_pool([row | {"response": shown}])
            options = {"splitter": "paragraphs", "store": tmp_path, "progress": False}
            (galp,) = score(pool, student, ["0"], **options)["galp"]
            expected = separate_pass(student, list(prompt_ids), list(ids)).mean()
            assert galp == pytest.approx(expected, abs=1e-5)
        if checked == 3:
            break
    assert checked


def test_a_step_of_the_tag_alone_is_no_step(tokenizer, tmp_path):
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = THINKING
    row = {"prompt_id": "p", "prompt": "3?", "teacher": "Ada"}
    texts = ["<think>\n\nWe add.\n\nThen 3.\n\n<|end|>\n", "We add.\n\nThen 3."]
    pool = load_pool([row | {"response": text} for text in texts])
    options = {"splitter": "paragraphs", "store": tmp_path, "progress": False}
    scores = score(pool, build_student("llama", thinking), ["0"], **options)
    assert scores["num_steps"].tolist() == [2, 2] and scores["lalp@0"].notna().all()


def test_a_template_that_asks_in_another_way_than_it_answers_is_said(tokenizer):
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = THINKING
    (note,) = tokenizer_notes(thinking)
    assert "ends a prompt in '<think>\\n', but writes '' there" in note


def test_control_tokens_in_a_response_are_counted_and_said(tokenizer, tmp_path, caplog):
    row = {"prompt_id": "p", "prompt": "3?", "teacher": "Ada"}
    pool = load_pool([row | {"response": text} for text in ("Write <|end|> last.", "It is 3.")])
    with caplog.at_level(logging.WARNING, "lalp"):
        score(pool, build_student("llama", tokenizer), ["0"], store=tmp_path, progress=False)
    assert "1 of 2 responses spell out control tokens of the student ('<|end|>' in" in caplog.text
    quoted = encode(tokenizer, render_prompt(tokenizer, PROMPT), "Write <|end|> last.")
    assert quoted.response_ids.count(3) == 1


def test_a_base_models_input_is_that_of_its_tokenizer():
    tokenizer = sentencepiece(True)
    text = render_prompt(tokenizer, PROMPT)
    encoded = encode(tokenizer, text, "We add.")
    # One beginning, as an id, and one space in front of the first word.
    assert [*encoded.prompt_ids, *encoded.response_ids] == tokenizer(text + "We add.").input_ids
    assert list(encode(tokenizer, text, "").prompt_ids) == tokenizer(text).input_ids
    tokens = tokenizer.convert_ids_to_tokens(list(encoded.prompt_ids))
    assert tokens[0] == "<s>" and tokens[1].startswith("▁")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<s>.{% endfor %}"
    assert tokenizer.convert_ids_to_tokens(list(end_of_turn(tokenizer))) == ["<s>", "."]
