"""Word lists of the token categories, read from ``lexicon.yaml``."""

from __future__ import annotations

from typing import Any, NamedTuple

from lalp.files import read_data

_DATA = read_data("paper/attribution/lexicon.yaml")

CATEGORIES = ("discourse", "math", "reasoning", "other")
"""The paper's four (Table 4), in its order of rows."""

KINDS: dict[str, str] = {kind: entry["category"] for kind, entry in _DATA["kinds"].items()}
"""Every kind, and its category when only the paper's own examples count."""

EXAMPLES: dict[str, list[str]] = {k: entry["examples"] for k, entry in _DATA["kinds"].items()}
"""Members of each kind, as a text of their own."""

READINGS = {name: KINDS | changes for name, changes in _DATA["readings"].items()}
"""Assignments of kinds to categories; ``narrow`` is the default."""

SINGLE_TOKENS = "single tokens"
"""The reading by ``label_token_alone`` instead of by spans."""

MATH = frozenset(kind for kind, category in KINDS.items() if category == "math")

WORDS = {name: frozenset(text.split()) for name, text in _DATA["words"].items()}
TOKEN_WORDS = {name: frozenset(text.split()) for name, text in _DATA["token_words"].items()}
LABELS, MATH_ENVIRONMENTS = ("|".join(_DATA[key]) for key in ("labels", "math_environments"))


class Phrase(NamedTuple):
    """A fixed phrase: its kind, whether that is beyond doubt, and where it counts."""

    kind: str
    sure: bool
    begins_clause: bool


def _phrase_tree() -> dict[str, Any]:
    """Phrases as nested dictionaries, word by word; the key "" holds the phrase that ends there."""
    root: dict[str, Any] = {}
    for kind, entry in _DATA["kinds"].items():
        for phrase in filter(None, entry.get("phrases", "").split(", ")):
            node, mark = root, phrase[-1]
            for word in phrase.rstrip("?^").split():
                node = node.setdefault(word, {})
            node[""] = Phrase(kind, mark != "?", mark == "^")
    return root


TREE = _phrase_tree()
