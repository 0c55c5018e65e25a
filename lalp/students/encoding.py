"""From texts to tokens: render a prompt, encode it with a response, assign tokens to steps.

Prompt and response meet only here: scoring, training, sampling and export take their tokens, or the
response's own part, from `encode` and `own_span`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt, Response, show
from lalp.students.templates import apply_template

Span = tuple[int, int]

# The end of a prompt that opens a thought, and perhaps closes it at once: <think>, [THINK], ...
TAG = r"[<\[◁]\|?(?!end)[\w:]*think\w*\|?[>\]▷]"
CLOSING_TAG = r"[<\[◁](?:/|\|end_)[\w:]*think\w*\|?[>\]▷]"
_THOUGHT = re.compile(rf"({TAG})(?:\s*({CLOSING_TAG}))?(\s*)\Z", re.IGNORECASE)

_ANSWER = "end-of-turn-is-next"  # placeholder for an assistant's message


@dataclass(frozen=True)
class Encoded:
    """A prompt and one response, tokenized together."""

    prompt_ids: tuple[int, ...]  # chat template with the generation prompt added
    response_ids: tuple[int, ...]  # the response's own tokens, no end-of-turn token
    # Character span of each response token in the response text; for a byte-level tokenizer they
    # have no gaps, though it may trim its spans.
    offsets: tuple[Span, ...]
    lost: str = ""  # why the tokens differ from the response; empty if they do not


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text before the response: chat template with tools, and the generation prompt.

    A tokenizer without a chat template (a base model) gets the messages' texts, each followed by a
    blank line. InputError if a template refuses the prompt, for example its system message.
    """
    messages = [asdict(message) for message in prompt.messages]
    if tokenizer.chat_template:
        try:
            offered = {"tools": list(prompt.tools)} if prompt.tools else {}
            text = apply_template(tokenizer, messages, add_generation_prompt=True, **offered)
            if not text:
                raise ValueError("it writes nothing")
            return text
        except ValueError as error:
            why = f"the student's chat template refuses it ({error})"
            advice = "change its messages' roles, or take another student"
            raise InputError(f"prompt {prompt.prompt_id!r}: {why}: {advice}") from error
    return "".join(message["content"] + "\n\n" for message in messages)


def opened_thought(prompt_text: str) -> str:
    r"""The tag (with the space after it) with which a prompt opens the response's thought.

    Example:
        >>> opened_thought("<|assistant|><think>\n"), opened_thought("<think></think>")
        ('<think>\n', '')
    """
    found = _THOUGHT.search(prompt_text)
    return found[0] if found and not found[2] else ""


def own_span(tokenizer: PreTrainedTokenizerBase, prompt_text: str, response: str) -> Span:
    """The part of a response with its own tokens, as a character span.

    The template's text is left out. At the start, that is a tag that opens the thought, if the
    prompt already ends in it. At the end, it is the end of the turn.
    """
    begin, found = 0, _THOUGHT.search(prompt_text)
    if found:
        tags = [re.escape(tag) for tag in found.groups()[:2] if tag]
        if again := re.match(r"\s*" + r"\s*".join(tags), response):
            rest = response[again.end() :]
            begin = again.end() + _num_shared(found[3], rest)
    end = _control_of(tokenizer).ends.search(response, begin)
    return begin, end.start() if end else len(response)


def _num_shared(one: str, other: str) -> int:
    """The number of equal characters at the start of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def encode(tokenizer: PreTrainedTokenizerBase, prompt_text: str, response: str) -> Encoded:
    """Tokenize prompt and response together, so every window sees the same tokens.

    A token belongs to the response if its first non-space character does. Text in the response that
    spells out a control token is read as that token, as trainers do. Text that `own_span` leaves
    out has no tokens. A base model's prompt begins with its beginning-of-sequence token, if the
    tokenizer uses one. An empty response gives the tokens to sample after: those of the prompt
    before a response that begins with a letter, like most. White space at the prompt's end alone
    would give other tokens.

    Raises:
        InputError: If the tokenizer fails on the text.
    """
    control = _control_of(tokenizer)
    begin, end = own_span(tokenizer, prompt_text, response)
    text, boundary = prompt_text + response[begin:end], len(prompt_text)
    is_asked = boundary == len(text) and prompt_text[-1:].isspace()
    # Not verbose: scoring reports whether a text exceeds the student's positions.
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    try:
        tokens = tokenizer(text, **options)
        if is_asked:
            tokens = _before_letter(tokenizer(f"{text}a", **options), boundary) or tokens
    except Exception as error:  # its libraries may raise anything on a character without a token
        piece, why = repr(response[:40]), f"the student's tokenizer fails on it ({error})"
        raise InputError(f"response {piece}...: {why}: take another student") from error
    offsets, lost = _close_gaps(text, tokens["offset_mapping"], control.is_byte_level)
    in_response = (
        i
        for i, (start, stop) in enumerate(offsets)
        if stop >= boundary and first_character(text, start, stop) >= boundary
    )
    first = next(in_response, len(offsets)) if text[boundary:] else len(offsets)
    ids = tokens["input_ids"][first:]
    if control.missing_bytes.intersection(text[boundary:].encode()):
        lost += [i for i, c in enumerate(text) if control.missing_bytes.intersection(c.encode())]
    pieces = [text[i] for i in sorted(set(lost)) if i >= boundary]
    pieces += [
        piece
        for token, (start, stop) in zip(ids, offsets[first:], strict=True)
        if token in control.unknown
        and (piece := text[start:stop].strip() or text[start:stop]) != control.unknown[token]
    ]
    return Encoded(
        (*control.begins, *tokens["input_ids"][:first]),
        tuple(ids),
        tuple(
            (max(0, start - boundary) + begin, stop - boundary + begin)
            for start, stop in offsets[first:]
        ),
        _why_lost(pieces),
    )


def _before_letter(tokens: Mapping[str, Any], boundary: int) -> dict[str, Any] | None:
    """The tokens of a text before a following letter; None if one token holds parts of both."""
    spans = tokens["offset_mapping"]
    if not spans or spans[-1] != (boundary, boundary + 1):
        return None
    return {name: tokens[name][:-1] for name in ("input_ids", "offset_mapping")}


def _close_gaps(
    text: str, offsets: Sequence[Span], is_byte_level: bool
) -> tuple[list[Span], list[int]]:
    """The tokens' spans, and the places of visible characters that are in none of them.

    Byte-level tokenizers read all white space, but may trim it from their spans, so the span of a
    token of spaces may be empty. This function restores it.
    """
    spans, lost, place = [], [], 0
    for start, end in offsets:
        if start > place:
            gap = text[place:start].rstrip()
            lost += [place + i for i, character in enumerate(gap) if not character.isspace()]
            start = place + len(gap) if is_byte_level else start
        spans.append((start, end))
        place = max(place, end)
    lost += [i for i in range(place, len(text)) if not text[i].isspace()]
    if is_byte_level and spans and place < len(text) and not text[place:].strip():
        spans[-1] = (spans[-1][0], len(text))
    return spans, lost


def _why_lost(pieces: Sequence[str]) -> str:
    if not pieces:
        return ""
    piece = pieces[0]
    point = f" (U+{ord(piece):04X})" if len(piece) == 1 else ""
    more = f" and {len(pieces) - 1} more" if len(pieces) > 1 else ""
    return f"the student's tokenizer has no token for {piece!r}{point}{more}"


def assign_steps(text: str, offsets: Sequence[Span], steps: Sequence[Span]) -> list[Span]:
    """Token span of each step: a token belongs to the step of its first non-space character.

    The spans partition the tokens if there is a step; a step in which no token begins has an empty
    span.

    Example:
        >>> assign_steps("Add. Then x", [(0, 3), (3, 4), (4, 9), (9, 11)], [(0, 5), (5, 11)])
        [(0, 2), (2, 4)]
    """
    spans, token = [], 0
    for k, (_, end) in enumerate(steps, 1):
        first = token
        while token < len(offsets) and (
            k == len(steps) or first_character(text, *offsets[token]) < end
        ):
            token += 1
        spans.append((first, token))
    return spans


def given_tokens(encoded: Encoded, response: Response) -> Int[np.ndarray, " given"]:
    """Places of response tokens that are only context: the text between its turns.

    A token belongs to the place of its first character that is not white space.
    """
    if not response.given:
        return np.empty(0, dtype=np.int64)
    starts = [first_character(response.text, *span) for span in encoded.offsets]
    begins, ends = np.array(response.given).T
    number = np.searchsorted(begins, starts, side="right") - 1  # of the last span that has begun
    return np.flatnonzero((number >= 0) & (starts < ends[number]))


def first_character(text: str, start: int, end: int) -> int:
    """Place of a token's first character that is not white space; ``start`` if there is none."""
    piece = text[start:end]
    return start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that the chat template puts after an assistant's message.

    Without a template, or if the template puts nothing there, this is the end-of-sequence token;
    InputError if the tokenizer has none.
    """
    suffix = around_answer(tokenizer)[1]
    if suffix.strip():
        # After a word, because some tokenizers put a space before every text.
        word, whole = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (_ANSWER, _ANSWER + suffix)
        )
        alone = tokenizer(suffix, add_special_tokens=False)["input_ids"]
        return tuple(whole[len(word) :] if whole[: len(word)] == word else alone)
    if tokenizer.eos_token_id is None:
        lacks = "has neither a chat template nor an end-of-sequence token"
        why = f"the student's tokenizer {lacks}: it could not learn to stop"
        raise InputError(f"{why}; take another student")
    return (tokenizer.eos_token_id,)


def stop_token_ids(
    tokenizer: PreTrainedTokenizerBase, config: Any, generation_config: Any
) -> frozenset[int]:
    """Tokens that end a response: the model's, the tokenizer's and the chat template's."""
    found = [tokenizer.eos_token_id]
    for part in (config.get_text_config(), generation_config):
        eos = getattr(part, "eos_token_id", None)
        found += eos if isinstance(eos, list | tuple) else [eos]
    try:
        suffix = around_answer(tokenizer)[1].lstrip()
    except InputError:
        suffix = ""  # the model may still stop by its own tokens
    first = tokenizer(suffix, add_special_tokens=False)["input_ids"][:1]
    # A template that writes plain text after a message names no stop token.
    found += [token for token in first if token in tokenizer.added_tokens_decoder]
    found = [token for token in found if token is not None]
    if wrong := [token for token in found if not isinstance(token, int)]:
        advice = "mend eos_token_id in its config.json or generation_config.json"
        raise InputError(f"the student's end token {wrong[0]!r} is no token id: {advice}")
    return frozenset(found)


def around_answer(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The chat template's text before and after an assistant's message; else nothing."""
    if not tokenizer.chat_template:
        return "", ""
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = apply_template(tokenizer, chat)
    except ValueError as error:
        why = f"the student's chat template refuses an assistant's message ({error})"
        raise InputError(f"{why}: take another student") from error
    before, mark, behind = text.rpartition(_ANSWER)
    return (before, behind) if mark else ("", "")


def without_end(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text without the chat template's end of a turn, or another control token there."""
    ending = around_answer(tokenizer)[1]
    if ending and text.endswith(ending):
        return text.removesuffix(ending)
    spelled = _control_of(tokenizer).spelled.pattern
    return re.sub(rf"{spelled}\s*\Z", "", text)


# --- what a tokenizer does to texts -----------------------------------------------------------


@dataclass(frozen=True)
class _Control:
    """A tokenizer's tokens that are not text."""

    begins: tuple[int, ...]  # start of a base model's input
    ends: re.Pattern[str]  # the end of a turn, at the end of a response
    spelled: re.Pattern[str]  # any control token
    unknown: dict[int, str]  # the token for anything that the vocabulary lacks
    is_byte_level: bool
    missing_bytes: frozenset[int]  # of a byte-level tokenizer


def _control_of(tokenizer: PreTrainedTokenizerBase) -> _Control:
    # A tokenizer may be changed, so the result is kept under all its inputs.
    names = tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token
    return _read_control(tokenizer, str(tokenizer.chat_template or ""), names, len(tokenizer))


@lru_cache(maxsize=8)
def _read_control(
    tokenizer: PreTrainedTokenizerBase, template: str, names: tuple[str | None, ...], size: int
) -> _Control:
    backend, vocab = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    # No shared setting says whether a tokenizer adds the token, so one text is tried.
    start = []
    if not template and tokenizer.bos_token_id is not None:
        with suppress(Exception):  # a closed vocabulary may refuse the text
            start = tokenizer("a").input_ids[:1]
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    try:
        suffix = around_answer(tokenizer)[1].lstrip()
    except InputError:
        suffix = ""
    ends = [t for t in special if t == tokenizer.eos_token or (t and suffix.startswith(t))]
    unknown = {tokenizer.unk_token, getattr(backend.model, "unk_token", None)} - {None}
    if not unknown and type(backend.model).__name__ == "Unigram":  # names it only in its file
        unknown_id = json.loads(backend.to_str())["model"]["unk_id"]
        unknown |= {backend.id_to_token(unknown_id)} if unknown_id is not None else set()
    is_byte_level = "ByteLevel" in f"{backend.pre_tokenizer} {backend.normalizer}"
    symbols = bytes_to_unicode().items() if is_byte_level else ()
    return _Control(
        begins=tuple(i for i in start if i == tokenizer.bos_token_id),
        ends=re.compile(rf"(?:{_any_of(ends)}\s*)+\Z"),
        spelled=re.compile(_any_of(special)),
        unknown={vocab[token]: token for token in unknown if token in vocab},
        is_byte_level=is_byte_level,
        missing_bytes=frozenset(byte for byte, symbol in symbols if symbol not in vocab),
    )


def _any_of(texts: Sequence[str]) -> str:
    """A pattern that matches any of the texts, and nothing if there are none."""
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})"


def control_token_note(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[Response]
) -> str | None:
    """The message for a user whose responses spell out the student's control tokens."""
    spelled = _control_of(tokenizer).spelled
    found = {r.response_id: match[0] for r in responses if (match := spelled.search(r.text))}
    if not found:
        return None
    name, token = next(iter(found.items()))
    return (
        f"{len(found)} of {len(responses)} responses spell out control tokens of the student "
        f"({token!r} in {name!r}): at the end of a response, an end of turn is left out; all "
        "others are read as these tokens, not as text"
    )


# Letters with marks, capitals, scripts, an emoji, and runs of white space.
_PROBE = "Then  x² = 3;\n\n\t- É ﬁ e\u0301 我们 🙂 <end"


def tokenizer_notes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Notes for a user on a tokenizer: texts that it cannot read, and a template's quirks.

    A vocabulary of whole words is not tried: it is closed on purpose, and only responses tell.
    """
    notes = []
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordLevel":
        plain = dict.fromkeys(["add_special_tokens", "verbose"], False)
        try:
            lost, ids = encode(tokenizer, "", _PROBE).lost, tokenizer(_PROBE, **plain).input_ids
            read = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        except Exception:  # its libraries may raise anything
            lost, read = "the student's tokenizer fails on some characters", _PROBE
        if lost:
            notes.append(f"{lost}: responses with characters like these get no score")
        elif tokenizer.backend_tokenizer.decoder and read.strip() != _PROBE:
            notes.append(
                f"its tokenizer changes texts before it reads them: {_PROBE!r} to {show(read, 80)}"
            )
    if not tokenizer.chat_template:
        return notes
    try:
        before, _ = around_answer(tokenizer)
        asked = render_prompt(tokenizer, Prompt("probe", (Message("user", "Hello"),)))
    except Exception:  # templates may raise anything; code that needs this one reports it
        return notes
    if before and before != asked:
        same = _num_shared(before, asked)
        notes.append(
            f"its chat template ends a prompt in {asked[same:]!r}, but writes {before[same:]!r} "
            "there before an answer that is given: responses are read behind the former"
        )
    return notes
