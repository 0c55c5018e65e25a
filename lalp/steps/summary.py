"""The steps of a pool before anything is scored: their number, length and script."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from lalp.pools.pool import Pool
from lalp.steps.regions import WORDS
from lalp.steps.splitters import split_response

# A thousand responses take seconds, all of a large pool many minutes.
_MOST_RESPONSES = 1000
# With fewer letters, a script belongs to a name or a quoted word.
_LEAST_SHARE = 0.1


def step_summary(pool: Pool) -> dict[str, Any]:
    """How the responses of a pool fall into sentences, as plain values for JSON.

    In a large pool it looks at 1,000 responses, drawn at random but always the same.
    ``unknown_scripts`` counts responses with at least a tenth of their letters in a script whose
    sentences `lalp.steps.sentences` does not know: their steps are lines only.

    Example:
        >>> from lalp import load_pool
        >>> record = {"prompt_id": "p", "prompt": "3 + 4?", "teacher": "A", "response": "Go. Up."}
        >>> step_summary(load_pool([record]))["steps_per_response"]["median"]
        2
    """
    places = range(len(pool.responses))
    if len(places) > _MOST_RESPONSES:
        places = random.Random(0).sample(places, _MOST_RESPONSES)
    responses = [pool.responses[place] for place in places]
    texts = [response.text for response in responses]
    cut = [(response.text, split_response(response, "sentences")) for response in responses]
    counts = [len(spans) for _, spans in cut]
    scripts = Counter(script for text in texts for script in unknown_scripts(text))
    return {
        "num_responses": len(texts),
        "num_one_step": counts.count(1),
        "steps_per_response": _quantiles(counts),
        "characters_per_step": _quantiles(
            [len(text[start:end].strip()) for text, spans in cut for start, end in spans]
        ),
        "unknown_scripts": dict(scripts.most_common()),
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    """Observed values: the least, the largest, and the range of 9 in 10."""
    shares = {"min": 0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1}
    found = np.quantile(values, list(shares.values()), method="inverted_cdf") if values else ()
    return dict(zip(shares, map(int, found), strict=False))


def unknown_scripts(text: str) -> list[str]:
    """Scripts of at least a tenth of a text's letters for which no sentence end is known.

    Example:
        >>> unknown_scripts("So x = 5."), unknown_scripts("ดังนั้น x = 5")
        ([], ['Thai'])
    """
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            letters[_script(character)] += count
    least = _LEAST_SHARE * letters.total()
    return sorted(
        name.title()
        for name, count in letters.items()
        if count >= least and name not in WORDS["scripts"]
    )


@cache
def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode; styled letters count as plain ones."""
    return unicodedata.name(unicodedata.normalize("NFKC", letter)[0], "UNNAMED").split()[0]
