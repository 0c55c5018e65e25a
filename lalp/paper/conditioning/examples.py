"""The paper's examples of self-conditioning, scored."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lalp.files import read_data
from lalp.paper.estimates import group_means
from lalp.paper.profiles import Profile
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.scoring.columns import lalp_column, token_column
from lalp.scoring.run import score


@dataclass(frozen=True)
class Example:
    """A text around one of the paper's examples, in this project's words; ``item`` repeats in it.

    The token that holds the item's character ``offset`` is tracked; ``paper`` has the probability
    that the paper prints for each occurrence, in percent.
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


EXAMPLES = tuple(
    Example(**record | {"paper": tuple(record["paper"])})
    for record in read_data("paper/conditioning/examples.yaml")
)
TOY_FORMS = ("one sentence", "two sentences")


def example_pool() -> Pool:
    """The texts of `EXAMPLES`, and Example 2 with other sums, to be scored like any other pool.

    The wrong sums come in one sentence and in two: ``teacher`` is one of ``TOY_FORMS``.
    """
    rows = [(e.name, e.prompt, "example", e.text) for e in EXAMPLES]
    for first, second in itertools.combinations_with_replacement(range(1, 5), 2):
        name, wrong = f"{first}+{second}", first + second + 1
        for form, link in zip(TOY_FORMS, (", so", ". So"), strict=True):
            text = f"{name} is {wrong}{link} the answer is {wrong}"
            rows.append((name, f"What is {name}?", form, text))
    return load_pool(pd.DataFrame(rows, columns=["prompt_id", "prompt", "teacher", "response"]))


def example_scores(profile: Profile) -> pd.DataFrame:
    """Scores of the paper's examples as text, at window 0 and at the profile's main window."""
    options = {"splitter": profile.splitter, "with_tokens": True}
    # A profile's main window may be 0 itself.
    windows = list(dict.fromkeys(["0", profile.main_window]))
    return score(example_pool(), profile.student, windows, **options)


def example_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Probability of each example's tracked token at its occurrences, beside the paper's (%).

    ``galp`` sees all text before the token, as do the values that the paper prints.
    """
    columns = [name.removesuffix(":tokens") for name in scores if name.endswith(":tokens")]
    rows = []
    own = scores[scores["teacher"] == "example"]
    for example, row in zip(EXAMPLES, own.to_dict("records"), strict=True):
        for i, (place, paper) in enumerate(zip(example.places, example.paper, strict=True), 1):
            token = _token_at(row, place)
            start, end = row["token_spans"][token]
            chances = [100 * np.exp(row[token_column(column)][token]) for column in columns]
            word = example.text[start:end].strip()
            rows.append((example.name, example.item, i, word, paper, *chances))
    names = ["example", "item", "occurrence", "token", "paper", *columns]
    return pd.DataFrame(rows, columns=names)


def _token_at(row: dict[str, Any], place: int) -> int:
    """Index of the token that holds a character."""
    return next(t for t, (start, end) in enumerate(row["token_spans"]) if start <= place < end)


def toy_table(scores: pd.DataFrame, window: str, **resampling: int) -> pd.DataFrame:
    """Mean log-probability of the wrong result at its two occurrences (Example 2), in nats.

    The scores must have the window. There is a row per form; each number is an `Estimate` over the
    sums: ``global_first``, ``global_second``, ``local_second``, the rises ``global_rise`` and
    ``local_rise``, and ``difference`` (global minus local at the second).
    """
    rows = []
    texts = {response.response_id: response.text for response in example_pool().responses}
    for row in scores[scores["teacher"].isin(TOY_FORMS)].to_dict("records"):
        text = texts[row["response_id"]]
        first, second = (_token_at(row, match.end()) for match in re.finditer(r"is (?=\d)", text))
        galp, local = row["galp:tokens"], row[token_column(lalp_column(window))]
        numbers = {
            "global_first": galp[first],
            "global_second": galp[second],
            "local_second": local[second],
            "global_rise": galp[second] - galp[first],
            "local_rise": local[second] - local[first],
            "difference": galp[second] - local[second],
        }
        rows.append({"prompt_id": row["prompt_id"], "form": row["teacher"]} | numbers)
    table = group_means(pd.DataFrame(rows), ["form"], list(numbers), **resampling)
    return table.drop(columns="num_prompts").rename(columns={"num_items": "num_sums"})
