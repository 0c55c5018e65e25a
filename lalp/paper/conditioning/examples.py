"""The paper's examples of self-conditioning, scored."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lalp.paper.conditioning.items import mean_over_items
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.scoring.columns import lalp_column, token_column

# --- the paper's examples as text -----------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A text around one of the paper's examples, in this project's words.

    Attributes:
        name: The paper's name for it.
        prompt: The question before the text.
        text: The response to score.
        item: What repeats.
        offset: Which of its characters is tracked: the token that holds it.
        paper: The probabilities that the paper prints, in percent, one per occurrence.
    """

    name: str
    prompt: str
    text: str
    item: str
    offset: int
    paper: tuple[float, ...]

    @property
    def places(self) -> list[int]:
        """Character offsets of the tracked character, one per occurrence of the item."""
        whole = re.finditer(rf"(?<!\w){re.escape(self.item)}(?!\w)", self.text)
        return [match.start() + self.offset for match in whole]


EXAMPLES = (
    Example(
        "Example 1",
        "A hall has 3 blocks of 59 seats each. How many seats does it have?",
        "One block holds 59 seats. All blocks are alike. "
        "Three of them hold 3 * 59 = 177 seats. "
        "Now I want to verify this another way. Suppose a block had one seat more. "
        "It would then hold 60 seats. Three such blocks hold 3 * 60 = 180 seats. "
        "That is too many, by one seat per block. Taking them away leaves 180 - 3 = 177 seats. "
        "The two ways agree. No row was left out. No seat was counted twice. "
        "The question asks for the whole hall. We have covered every block. "
        "So the final answer is 177.",
        "177",
        2,
        (16.0, 90.4, 99.99),
    ),
    Example(
        "Example 2",
        "What is 1+1?",
        "1+1 is 3, so the answer is 3",
        "3",
        0,
        (4.9, 97.7),
    ),
    Example(
        "Example 3",
        "A number has 4 * 307 divisors. How many of them are not among 639 special ones?",
        "The count is a product of two factors. Multiplying them gives 4 * 307 = 1228. "
        "This is the size of the whole family. The special ones are a part of it. "
        "They have been counted already. We only need the rest. "
        "No divisor is in both parts. Every divisor is in one of them. "
        "To repeat, the number has 1228 divisors. "
        "We remove the special ones. That is a subtraction. Both numbers are known. "
        "Nothing else has to be counted. The order does not matter. "
        "The rest is 1228 - 639 = 589.",
        "1228",
        0,
        (71.0, 99.99, 99.4),
    ),
    Example(
        "Example 4",
        "Why does a number that is no perfect square have an even number of divisors?",
        "Let d divide n. Then n / d divides n as well. "
        "This shows that the divisors of n come in pairs. "
        "A pair is made of d and n / d. The two are different. "
        "Otherwise n would be the square of d. We have excluded this. "
        "Hence every pair has two members. No divisor is left over. "
        "Because the divisors come in pairs, their number is even.",
        "come in pairs",
        0,
        (27.0, 51.0),
    ),
)


TOY_FORMS = ("one sentence", "two sentences")


def example_pool() -> Pool:
    """The texts of `EXAMPLES`, and Example 2 with other sums, to be scored like any other pool.

    The wrong sums ("1+1 is 3, so the answer is 3") come in one sentence and in two: ``teacher`` is
    one of ``TOY_FORMS``.
    """
    records = [(e.name, e.prompt, "example", e.text) for e in EXAMPLES]
    for first, second in itertools.combinations_with_replacement(range(1, 5), 2):
        name, wrong = f"{first}+{second}", first + second + 1
        for form, link in zip(TOY_FORMS, (", so", ". So"), strict=True):
            text = f"{name} is {wrong}{link} the answer is {wrong}"
            records.append((name, f"What is {name}?", form, text))
    return _made_pool(records)


def _made_pool(records: Sequence[tuple[str, str, str, str]]) -> Pool:
    """A pool of (prompt id, question, teacher, response)."""
    return Pool(
        {name: Prompt(name, (Message("user", question),)) for name, question, _, _ in records},
        tuple(Response(f"{name}/{who}", name, who, text) for name, _, who, text in records),
    )


def example_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Probability of each example's tracked token at its occurrences, beside the paper's.

    Args:
        scores: Of `example_pool`, with token columns.

    Returns:
        ``example``, ``item``, ``occurrence``, ``token`` (as the student reads it), and in percent
        ``paper``, ``galp`` (all before it) and each window's column. The paper prints values under
        all before it only.
    """
    columns = [name for name in scores if name.endswith(":tokens")]
    rows = []
    own = scores[scores["teacher"] == "example"]
    for example, row in zip(EXAMPLES, own.to_dict("records"), strict=True):
        for i, (place, paper) in enumerate(zip(example.places, example.paper, strict=True), 1):
            token = _token_at(row, place)
            start, end = row["token_spans"][token]
            rows.append(
                {
                    "example": example.name,
                    "item": example.item,
                    "occurrence": i,
                    "token": example.text[start:end].strip(),
                    "paper": paper,
                    **{c.removesuffix(":tokens"): 100 * np.exp(row[c][token]) for c in columns},
                }
            )
    return pd.DataFrame(rows)


def _token_at(row: dict[str, Any], place: int) -> int:
    """Index of the token that holds a character."""
    return next(t for t, (start, end) in enumerate(row["token_spans"]) if start <= place < end)


def toy_table(
    scores: pd.DataFrame, window: str, *, num_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean log-probability of the wrong result at its two occurrences (Example 2).

    Args:
        scores: Of `example_pool`, with token columns; the window must be one of theirs.
        window: The local window.
        num_resamples: Bootstrap resamples, over the sums.
        seed: Of the bootstrap.

    Returns:
        One row per form: ``num_sums``; in nats, each an `Estimate`: ``global_first``,
        ``global_second``, ``local_second``, the rises ``global_rise`` and ``local_rise``, and
        ``difference`` (global minus local at the second).
    """
    rows = []
    texts = {response.response_id: response.text for response in example_pool().responses}
    for row in scores[scores["teacher"].isin(TOY_FORMS)].to_dict("records"):
        text = texts[row["response_id"]]
        first, second = (_token_at(row, match.end()) for match in re.finditer(r"is (?=\d)", text))
        everything, local = row["galp:tokens"], row[token_column(lalp_column(window))]
        rows.append(
            {
                "prompt_id": row["prompt_id"],
                "form": row["teacher"],
                "global_first": everything[first],
                "global_second": everything[second],
                "local_second": local[second],
                "global_rise": everything[second] - everything[first],
                "local_rise": local[second] - local[first],
                "difference": everything[second] - local[second],
            }
        )
    frame = pd.DataFrame(rows)
    names = list(frame.columns[2:])
    return pd.DataFrame(
        {
            "form": form,
            "num_sums": len(group),
            **dict(zip(names, mean_over_items(group, names, num_resamples, seed), strict=True)),
        }
        for form, group in frame.groupby("form", sort=True)
    )
