"""Which teachers come from the student's own base model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lalp.files import read_data

# Patterns by family.
_FAMILIES: dict[str, list[str]] = read_data("selection/families.yaml")


def family(name: str) -> str | None:
    """The base-model family of a model by its name, hub id or folder; None if it is unknown.

    Example:
        >>> family("Qwen/Qwen2.5-7B-Instruct"), family("QwQ-32B"), family("GPT-4")
        ('Qwen2.5', 'Qwen2.5', None)
    """
    text = name.lower().replace("_", "-")
    for found, patterns in _FAMILIES.items():
        if any(re.search(pattern, text) for pattern in patterns):
            return found
    return None


def relatives(student: str, teachers: Iterable[str]) -> list[str]:
    """Teachers of the student's family, in order.

    Example:
        >>> relatives("Qwen/Qwen2.5-7B-Instruct", ["DeepSeek-R1", "QwQ-32B"])
        ['QwQ-32B']
    """
    own = family(student)
    return [teacher for teacher in teachers if own and family(teacher) == own]
