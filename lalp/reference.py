"""The paper's tables as data, to lay this project's numbers beside them.

Paper: "The Signal is in the Steps: Local Scoring for Reasoning Data Selection", arXiv 2510.03988v2.
Numbers are as printed, also where the paper contradicts itself; ``notes`` say where. Names are
unified: teachers are spelled one way, and selection rules are this project's (``lalp-lowest`` is
the paper's "Local Lowest", ``galp`` its "Global Highest", ``lalp`` its "Local Highest").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType

import pandas as pd

from lalp.records import InputError

STUDENT_7B = "Qwen2.5-7B-Instruct"
STUDENT_32B = "Qwen2.5-32B-Instruct"
DEEPSEEK, QWQ, QWEN3 = "DeepSeek-R1", "QwQ-32B", "Qwen3-32B"
BENCHMARKS = ("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24")
VERDICTS = ("holds", "does not hold", "not resolved", "not testable at this scale", "not run")


@dataclass(frozen=True, eq=False)
class ReferenceTable:
    """One table of the paper.

    Attributes:
        number: The paper's number, or section and rows where the number is unknown.
        title: What the table shows, in this project's words.
        frame: One row per student and teacher or rule, columns as printed. Accuracies are shares
            (AVG = mean over ``BENCHMARKS``), scores are nats per token, Table 8 is in percent.
        decimals: Digits after the point, as printed.
        notes: Where the paper is silent or contradicts itself.
    """

    number: str
    title: str
    frame: pd.DataFrame
    decimals: int
    notes: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """Largest error of a printed number: half a unit of its last digit."""
        return 0.5 * 10**-self.decimals


def _frame(
    row_name: str, columns: Sequence[str], blocks: Mapping[str, Mapping[str, Sequence[float]]]
) -> pd.DataFrame:
    """Rows indexed by student and ``row_name``; None becomes NaN."""
    rows = {
        (student, row): cells for student, block in blocks.items() for row, cells in block.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["student", row_name])
    return pd.DataFrame(list(rows.values()), index=index, columns=list(columns), dtype=float)


_TABLE_1 = _frame(
    "teacher",
    ["original", "lowest", "middle", "highest"],
    {
        STUDENT_7B: {
            "Qwen2.5-72B-Instruct": [0.353, 0.292, 0.338, 0.368],
            QWQ: [0.353, 0.320, 0.349, 0.382],
        }
    },
)

_C4_TEACHERS = _frame(
    "teacher",
    [*BENCHMARKS, "AVG", "GALP", "LALP"],
    {
        STUDENT_7B: {
            "original": [0.752, 0.167, 0.500, 0.268, 0.216, 0.404, 0.167, 0.353, None, None],
            QWEN3: [0.714, 0.166, 0.500, 0.279, 0.389, 0.375, 0.133, 0.365, -0.697, -0.279],
            DEEPSEEK: [0.784, 0.166, 0.600, 0.239, 0.330, 0.441, 0.233, 0.399, -0.796, -0.264],
            QWQ: [0.780, 0.266, 0.600, 0.275, 0.356, 0.442, 0.200, 0.417, -0.743, -0.241],
        },
        STUDENT_32B: {
            "original": [0.822, 0.133, 0.700, 0.298, 0.422, 0.471, 0.233, 0.445, None, None],
            QWEN3: [0.882, 0.567, 0.900, 0.353, 0.598, 0.559, 0.600, 0.637, -0.800, -0.257],
            DEEPSEEK: [0.896, 0.467, 0.925, 0.338, 0.613, 0.644, 0.733, 0.659, -0.895, -0.241],
            QWQ: [0.916, 0.633, 0.975, 0.364, 0.653, 0.689, 0.800, 0.719, -0.888, -0.218],
        },
    },
)

_TABLE_3 = _frame(
    "rule",
    ["OLYMPIAD", "CN_MATH24", "AVG"],
    {
        STUDENT_7B: {
            "original": [0.404, 0.167, 0.353],
            "random": [0.456, 0.233, 0.407],
            "galp": [0.441, 0.233, 0.412],
            "lalp-lowest": [0.433, 0.233, 0.399],
            "lalp": [0.441, 0.333, 0.440],
        },
        STUDENT_32B: {
            "original": [0.471, 0.233, 0.445],
            "random": [0.636, 0.733, 0.651],
            "galp": [0.636, 0.733, 0.632],
            "lalp-lowest": [0.640, 0.700, 0.623],
            "lalp": [0.673, 0.833, 0.726],
        },
    },
)

_TABLE_8 = _frame(
    "rule",
    [DEEPSEEK, QWQ, QWEN3],
    {
        STUDENT_7B: {
            "random": [33.3, 33.3, 33.4],
            "lalp-lowest": [42.4, 11.3, 46.3],
            "galp": [47.6, 7.2, 45.2],
            "lalp": [42.4, 36.3, 21.3],
        },
        STUDENT_32B: {
            "random": [33.3, 33.3, 33.4],
            "lalp-lowest": [43.3, 20.4, 36.3],
            "galp": [47.2, 8.6, 44.2],
            "lalp": [26.8, 44.9, 28.3],
        },
    },
)

_C4_SELECTION = _frame(
    "rule",
    [*BENCHMARKS, "AVG"],
    {
        STUDENT_7B: {
            "original": [0.752, 0.167, 0.500, 0.268, 0.216, 0.404, 0.167, 0.353],
            "random": [0.768, 0.133, 0.625, 0.268, 0.367, 0.456, 0.233, 0.407],
            "galp": [0.762, 0.200, 0.600, 0.268, 0.381, 0.441, 0.233, 0.412],
            "lalp-lowest": [0.742, 0.167, 0.575, 0.298, 0.342, 0.433, 0.233, 0.399],
            "lalp": [0.788, 0.200, 0.625, 0.298, 0.392, 0.441, 0.333, 0.440],
        },
        STUDENT_32B: {
            "original": [0.824, 0.133, 0.700, 0.298, 0.422, 0.471, 0.233, 0.445],
            "random": [0.906, 0.400, 0.925, 0.327, 0.628, 0.636, 0.733, 0.651],
            "galp": [0.876, 0.433, 0.825, 0.331, 0.592, 0.636, 0.733, 0.632],
            "lalp-lowest": [0.896, 0.400, 0.825, 0.324, 0.608, 0.640, 0.700, 0.623],
            "lalp": [0.902, 0.667, 1.000, 0.353, 0.653, 0.673, 0.833, 0.726],
        },
    },
)

_NOTE_WINDOW = "Which window gave the LALP values is not stated."
_NOTE_LEVEL = (
    "LALP (-0.218 to -0.279) lies above GALP (-0.697 to -0.895), although Fig. 5 puts log-"
    "probabilities with local context 0.7-1.1 nats below those with full context and Eq. 3 gives "
    "lower values on real text: compare orders and differences, not levels."
)
_NOTE_OPPOSITE = (
    "Sec. 7.1 says that GALP induces the opposite order. By its numbers only Qwen3-32B moves, from "
    "last to first: QwQ-32B stays above DeepSeek-R1 (Kendall tau with AVG -1/3, both students)."
)
_NOTE_ORIGINAL_MEAN = (
    "AVG 0.445 of the original 32B student is not the mean of its benchmarks: 0.440, with MATH "
    "0.822 (breakdown by teacher) as with MATH 0.824 (breakdown by rule)."
)
_NOTE_LOWEST_MEAN = (
    "AVG 0.623 of the 32B student under lalp-lowest is not the mean of its benchmarks, 0.628."
)
_NOTE_MATH = (
    "MATH of the original 32B student is 0.822 in the breakdown by teacher, 0.824 in that by rule."
)

TABLES: Mapping[str, ReferenceTable] = MappingProxyType(
    {
        table.number: table
        for table in (
            ReferenceTable(
                "1",
                "AVG accuracy after training on the lowest, middle and highest GALP third of one "
                "teacher's responses",
                _TABLE_1,
                3,
                ("The original model's AVG is printed once and repeated here for each teacher.",),
            ),
            ReferenceTable(
                "2",
                "AVG accuracy after training on one teacher's responses, and the teacher's mean "
                "GALP and LALP before training",
                _C4_TEACHERS.drop(index="original", level="teacher")[["AVG", "GALP", "LALP"]],
                3,
                (
                    "The table itself was not in the text these numbers were read from: its values "
                    "are those of its breakdown in Sec. C.4.",
                    _NOTE_LEVEL,
                    _NOTE_OPPOSITE,
                    _NOTE_WINDOW,
                ),
            ),
            ReferenceTable(
                "3",
                "Accuracy after training on one response per prompt, chosen by rule from the pool "
                "of three teachers",
                _TABLE_3,
                3,
                (
                    _NOTE_ORIGINAL_MEAN,
                    _NOTE_LOWEST_MEAN,
                    "OLYMPIAD of the 7B student is highest under random (0.456), not lalp (0.441).",
                    "GPQA-Diamond of the 32B student trained on the lalp selection is 0.702 in "
                    "Sec. C.11 and 0.694 in Sec. C.14.",
                    "lalp beats the best single teacher (Table 2, QwQ-32B) by 0.007 for the 32B "
                    "student while it also takes most responses from it (Table 8).",
                    _NOTE_WINDOW,
                ),
            ),
            ReferenceTable(
                "8",
                "Teachers of the selected responses by rule, percent",
                _TABLE_8,
                1,
                (
                    "The paper heads both blocks Qwen2.5-32B-Instruct; the first is presumably the "
                    "7B student, as in its other tables of both, and stands here as such.",
                    "In the first block DeepSeek-R1 has 42.4 % under lowest as under highest LALP.",
                    "In the first block lalp takes DeepSeek-R1 more often than QwQ-32B, whose mean "
                    "LALP is the highest (Table 2).",
                ),
            ),
            ReferenceTable(
                "C.4-teachers",
                "Table 2 by benchmark (Sec. C.4)",
                _C4_TEACHERS,
                3,
                (
                    _NOTE_ORIGINAL_MEAN,
                    _NOTE_MATH,
                    "AIME25 of the 7B student is cut off, not rounded, in the teachers' rows (5/30 "
                    "as 0.166, 8/30 as 0.266); elsewhere 5/30 is 0.167.",
                    _NOTE_LEVEL,
                    _NOTE_OPPOSITE,
                    _NOTE_WINDOW,
                ),
            ),
            ReferenceTable(
                "C.4-selection",
                "Table 3 by benchmark (Sec. C.4)",
                _C4_SELECTION,
                3,
                (_NOTE_ORIGINAL_MEAN, _NOTE_LOWEST_MEAN, _NOTE_MATH, _NOTE_WINDOW),
            ),
        )
    }
)


def paper_teacher_order(student: str, score: str) -> list[str]:
    """The paper's teachers from highest to lowest ``GALP``, ``LALP`` or ``AVG`` (Table 2).

    Raises:
        InputError: If the paper's Table 2 lacks the student or the score.
    """
    frame = TABLES["2"].frame
    students = list(frame.index.unique("student"))
    if student not in students:
        raise InputError(f"Table 2 has no student {student!r}: choose {' or '.join(students)}")
    if score not in frame.columns:
        raise InputError(f"Table 2 has no score {score!r}: choose {' or '.join(frame.columns)}")
    return list(frame.loc[student, score].sort_values(ascending=False).index)


@dataclass(frozen=True)
class Verdict:
    """Whether a claim of the paper is seen in this run.

    Attributes:
        claim: The claim, in one sentence.
        paper: What the paper reports.
        run: What this run gives.
        verdict: One of ``VERDICTS``.
        why: What the verdict rests on, or why there is none.
        where: The paper's tables and figures, for example ``Table 2, Fig. 1``.
    """

    claim: str
    paper: str
    run: str
    verdict: str
    why: str
    where: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(
                f"{self.verdict!r} is no verdict on {self.claim!r}: choose one of "
                f"{', '.join(VERDICTS)}"
            )


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table, one row each, in the given order."""
    columns = [field.name for field in fields(Verdict)]
    return pd.DataFrame([asdict(verdict) for verdict in verdicts], columns=columns)
