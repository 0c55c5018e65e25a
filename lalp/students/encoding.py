"""From texts to tokens: render a prompt, encode it with a response, assign tokens to steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.pools.pool import Prompt
from lalp.students.templates import apply_template

Span = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """A prompt and one response, tokenized together."""

    prompt_ids: tuple[int, ...]  # chat template with the generation prompt added
    response_ids: tuple[int, ...]  # the response's own tokens, no end-of-turn token
    offsets: tuple[Span, ...]  # character span of each response token in the response text


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text before the response: chat template, generation prompt added.

    A tokenizer without a chat template (a base model) gets the messages' texts, each followed by
    a blank line, after its beginning-of-sequence token if it uses one. A template that refuses
    the prompt, for example its system message, is an `InputError`.
    """
    messages = [asdict(message) for message in prompt.messages]
    if tokenizer.chat_template:
        try:
            return apply_template(tokenizer, messages, add_generation_prompt=True)
        except ValueError as error:
            why = f"the student's chat template refuses it ({error})"
            advice = "change its messages' roles, or take another student"
            raise InputError(f"prompt {prompt.prompt_id!r}: {why}: {advice}") from error
    # Whether a tokenizer adds the token is no setting that all kinds share, so one text is tried.
    first = tokenizer("a").input_ids[0]
    start = tokenizer.bos_token if first == tokenizer.bos_token_id and tokenizer.bos_token else ""
    return start + "".join(message["content"] + "\n\n" for message in messages)


def encode(tokenizer: PreTrainedTokenizerBase, prompt_text: str, response: str) -> Encoded:
    """Tokenize prompt and response in one go, so that no window sees another tokenization.

    A token belongs to the response if its first non-space character does.
    """
    text = prompt_text + response
    # Not verbose: whether a text exceeds the student's positions is for scoring to say.
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    boundary, offsets = len(prompt_text), tokens["offset_mapping"]
    in_response = (i for i, s in enumerate(offsets) if first_character(text, *s) >= boundary)
    first = next(in_response, len(offsets))
    return Encoded(
        tuple(tokens["input_ids"][:first]),
        tuple(tokens["input_ids"][first:]),
        tuple((max(0, start - boundary), end - boundary) for start, end in offsets[first:]),
    )


def assign_steps(text: str, offsets: Sequence[Span], steps: Sequence[Span]) -> list[Span]:
    """Token span of each step: a token belongs to the step of its first non-space character.

    The spans partition the tokens; a step that no token begins in has an empty span.

    Example:
        >>> assign_steps("Add. Then x", [(0, 3), (3, 4), (4, 9), (9, 11)], [(0, 5), (5, 11)])
        [(0, 2), (2, 4)]
    """
    spans, token = [], 0
    for _, end in steps:
        first = token
        while token < len(offsets) and first_character(text, *offsets[token]) < end:
            token += 1
        spans.append((first, token))
    return spans


def first_character(text: str, start: int, end: int) -> int:
    """Where a token's first character stands that is no white space; ``start`` if it has none."""
    piece = text[start:end]
    return start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that the chat template puts after an assistant's message.

    A tokenizer without a template, or whose template puts nothing there, ends with its
    end-of-sequence token; one that has none either is an `InputError`.
    """
    suffix = _text_after_turn(tokenizer)
    if suffix.strip():
        return tuple(tokenizer(suffix, add_special_tokens=False)["input_ids"])
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
        suffix = _text_after_turn(tokenizer).lstrip()
    except InputError:
        suffix = ""  # the model may still stop by its own tokens
    first = tokenizer(suffix, add_special_tokens=False)["input_ids"][:1]
    # A template that writes plain text behind a message names no token to stop at.
    found += [token for token in first if token in tokenizer.added_tokens_decoder]
    found = [token for token in found if token is not None]
    if wrong := [token for token in found if not isinstance(token, int)]:
        advice = "mend eos_token_id in its config.json or generation_config.json"
        raise InputError(f"the student's end token {wrong[0]!r} is no token id: {advice}")
    return frozenset(found)


def _text_after_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes behind an assistant's message; empty without a template."""
    if not tokenizer.chat_template:
        return ""
    mark = "end-of-turn-is-next"
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": mark}]
    try:
        text = apply_template(tokenizer, chat)
    except ValueError as error:
        why = f"the student's chat template refuses an assistant's message ({error})"
        raise InputError(f"{why}: take another student") from error
    return text.rpartition(mark)[2] if mark in text else ""
