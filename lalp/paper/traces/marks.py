r"""End-of-thought marks of different teachers become the pool's own.

DeepSeek-R1, QwQ and the distilled model write ``</think>`` behind their thoughts. s1.1 begins with
a line "think" and has a line "answer", with "Answer:" behind it. Unchanged, these marks would tell
who wrote a text, and the student would score them. So a thought and its answer are joined by
`lalp.pools.turns.join_thought` for all.

LIMO-32B and Qwen2.5-32B-Instruct write no mark at all. The end of their thoughts is unknown, and a
guess would add a mark that they do not have, so their texts stay as they are. The missing mark
distinguishes these two from the others, so the primary comparison leaves them out, and a comparison
with them counts no mark's tokens. If a teacher writes marks, its response without one is not
finished: the pool leaves it out and counts it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from lalp.errors import InputError
from lalp.pools.turns import join_thought

# All marks of a thought or an answer in any of the files, or in a chat template.
_ANY_MARK = re.compile(
    r"</?think\w*>|\A\s*(?:think|Answer:)|^(?:think|answer)[^\S\n]*$|<[|｜][^|｜>]*[|｜]>"
    r"|(?<=</think>)\s*Answer:",
    re.MULTILINE,
)
# CJK ideographs, their punctuation, kana, hangul.
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Marks:
    """Regular expressions for a teacher's text before a thought, and between it and the answer.

    Without ``end`` the teacher writes no marks.
    """

    begin: str = ""
    end: str = ""


def unify_marks(text: str, marks: Marks) -> str | None:
    r"""A response with the pool's marks; None if the teacher's mark is missing from it.

    Raises:
        InputError: If there are two ends of a thought, or the thought or the answer is empty.

    Example:
        >>> unify_marks("Two more.</think>It is 4.", Marks(end="</think>"))
        '<think>\nTwo more.\n</think>\n\nIt is 4.'
        >>> unify_marks("It is 4.", Marks())
        'It is 4.'
    """
    if not marks.end:
        return text
    begun = re.match(marks.begin, text)
    ends = list(re.finditer(marks.end, text))
    if begun is None or not ends:
        return None
    if len(ends) > 1:
        raise InputError(f"{len(ends)} ends of a thought: which one ends it is not known")
    thought, answer = text[begun.end() : ends[0].start()], text[ends[0].end() :]
    if not thought.strip():
        raise InputError("the thought is empty")
    return join_thought(thought, answer)


def find_marks(text: str) -> Counter[str]:
    r"""Every mark of a thought or an answer in a text, and how often it occurs there.

    Example:
        >>> find_marks("<think>\nTwo more.\n</think>\n\nIt is 4.")
        Counter({'<think>': 1, '</think>': 1})
        >>> find_marks("think\nTwo more.\nanswer\nAnswer: 4")
        Counter({'think': 1, 'answer': 1})
    """
    return Counter(match[0].strip() for match in _ANY_MARK.finditer(text))


def has_cjk(text: str) -> bool:
    """Whether a text holds Chinese, Japanese or Korean characters.

    Example:
        >>> has_cjk("It is 4。"), has_cjk("It is 4.")
        (True, False)
    """
    return _CJK.search(text) is not None
