"""What the tests of sampling ask, and what transformers answers."""

from __future__ import annotations

import torch

from lalp.pools.pool import Message, Prompt
from lalp.sampling.settings import Sampling
from lalp.students.encoding import render_prompt
from lalp.students.student import Student

END = 3  # <|end|> of the tests' tokenizer
QUESTIONS = ["Add 3 and 4.", "What is 3 times 4? Let us check the sum first.", "Why?", "7?"]
PROMPTS = [Prompt(f"p{i}", (Message("user", text),), "7") for i, text in enumerate(QUESTIONS)]
WARM = Sampling(3, temperature=1.0, max_tokens=12)


def prompt_ids(student: Student, prompt: Prompt) -> list[int]:
    text = render_prompt(student.tokenizer, prompt)
    return student.tokenizer(text, add_special_tokens=False).input_ids


def greedy_ids(student: Student, ids: list[int], limit: int, stops: frozenset[int]) -> list[int]:
    """What transformers' own loop draws, one prompt at a time."""
    whole = student.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=sorted(stops) or None,
        pad_token_id=0,
    )
    return whole[0, len(ids) :].tolist()
