"""The paper's tables as data, to lay this project's numbers beside them.

Paper: "The Signal is in the Steps: Local Scoring for Reasoning Data Selection", arXiv 2510.03988v2.
Numbers are as printed, also where the paper contradicts itself; ``notes`` say where. Names are
unified: teachers are spelled one way, and selection rules are this project's (``lalp-lowest`` is
the paper's "Local Lowest", ``galp`` its "Global Highest", ``lalp`` its "Local Highest").

The text these numbers were read from names few of its tables: 2, 9-12 and 16 are numbered here by
their place in it. It lost its formulas, and its pictures, so that ``FIGURES`` holds no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from lalp.errors import InputError

STUDENT_7B = "Qwen2.5-7B-Instruct"
STUDENT_32B = "Qwen2.5-32B-Instruct"
STUDENT_MATH = "Qwen2.5-Math-7B"
STUDENT_LLAMA = "Llama-3.1-8B-Instruct"
DEEPSEEK, QWQ, QWEN3 = "DeepSeek-R1", "QwQ-32B", "Qwen3-32B"
QWEN72B, GEMMA = "Qwen2.5-72B-Instruct", "Gemma3-27B-IT"
BENCHMARKS = ("MATH", "AIME25", "AMC", "MINERVA", "KAOYAN", "OLYMPIAD", "CN_MATH24")


@dataclass(frozen=True, eq=False)
class ReferenceTable:
    """One table of the paper.

    Attributes:
        number: The paper's number.
        title: What the table shows, in this project's words.
        frame: One row per student and teacher or rule, columns as printed. Accuracies are shares
            (AVG = mean over ``BENCHMARKS``), scores are nats per token, Tables 4 and 8 are in
            percent. Tables 5-7 hold settings as printed, as text.
        decimals: Digits after the point, as printed; fewer where the paper drops final zeros.
        notes: Where the paper is silent or contradicts itself.
        notebook: The notebook of this project that speaks on it, if there is one.
        not_run: Why its numbers are not computed again at this scale, or which part is not.
    """

    number: str
    title: str
    frame: pd.DataFrame
    decimals: int
    notes: tuple[str, ...] = ()
    notebook: str = ""
    not_run: str = ""

    @property
    def tolerance(self) -> float:
        """Largest error of a printed number: half a unit of its last digit."""
        return 0.5 * 10**-self.decimals


@dataclass(frozen=True)
class ReferenceFigure:
    """One figure of the paper; the fields mean what they mean in ``ReferenceTable``."""

    number: str
    title: str
    notes: tuple[str, ...] = ()
    notebook: str = ""
    not_run: str = ""


def _frame(
    row_name: str, columns: Sequence[str], blocks: Mapping[str, Mapping[str, Sequence[float]]]
) -> pd.DataFrame:
    """Rows indexed by student and ``row_name``; None becomes NaN."""
    rows = {
        (student, row): cells for student, block in blocks.items() for row, cells in block.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["student", row_name])
    return pd.DataFrame(list(rows.values()), index=index, columns=list(columns), dtype=float)


def _thirds(
    blocks: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], original: Mapping[str, list]
) -> pd.DataFrame:
    """Rows of each student's original model, then of each teacher's GALP thirds."""
    rows = {}
    for student, teachers in blocks.items():
        rows[student, "original", "original"] = original[student]
        for teacher, cells in teachers.items():
            for third, row in zip(("lowest", "middle", "highest"), cells, strict=True):
                rows[student, teacher, third] = row
    index = pd.MultiIndex.from_tuples(rows, names=["student", "teacher", "third"])
    return pd.DataFrame(list(rows.values()), index=index, columns=[*BENCHMARKS, "AVG"])


def _plain_frame(
    row_name: str, columns: Sequence[str], rows: Mapping[str, Sequence[object]]
) -> pd.DataFrame:
    """Rows indexed by ``row_name`` alone: the table is not about a student."""
    index = pd.Index(rows, name=row_name)
    return pd.DataFrame(list(rows.values()), index=index, columns=list(columns))


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

_ORIGINAL_7B = [0.752, 0.167, 0.500, 0.268, 0.216, 0.404, 0.167, 0.353]
_QWEN72B_THIRDS = [
    [0.678, 0.100, 0.300, 0.224, 0.296, 0.314, 0.133, 0.292],
    [0.710, 0.100, 0.425, 0.257, 0.336, 0.339, 0.200, 0.338],
    [0.744, 0.133, 0.500, 0.252, 0.391, 0.391, 0.167, 0.368],
]

_TABLE_13 = _thirds(
    {
        STUDENT_7B: {
            QWEN72B: _QWEN72B_THIRDS,
            GEMMA: [
                [0.667, 0.100, 0.375, 0.165, 0.226, 0.290, 0.133, 0.279],
                [0.716, 0.100, 0.475, 0.129, 0.246, 0.357, 0.167, 0.313],
                [0.712, 0.100, 0.500, 0.176, 0.251, 0.362, 0.133, 0.319],
            ],
        },
        STUDENT_MATH: {
            QWEN72B: [
                [0.770, 0.033, 0.500, 0.260, 0.407, 0.381, 0.100, 0.350],
                [0.790, 0.100, 0.550, 0.250, 0.410, 0.416, 0.133, 0.378],
                [0.778, 0.133, 0.600, 0.350, 0.460, 0.398, 0.167, 0.412],
            ],
            GEMMA: [
                [0.802, 0.133, 0.525, 0.213, 0.331, 0.436, 0.200, 0.377],
                [0.792, 0.100, 0.575, 0.246, 0.312, 0.450, 0.367, 0.406],
                [0.816, 0.167, 0.625, 0.250, 0.387, 0.455, 0.433, 0.448],
            ],
        },
    },
    {
        STUDENT_7B: _ORIGINAL_7B,
        STUDENT_MATH: [0.500, 0.033, 0.425, 0.092, 0.100, 0.164, 0.133, 0.207],
    },
)

_TABLE_14 = _thirds(
    {
        STUDENT_7B: {
            QWEN72B: _QWEN72B_THIRDS,
            QWQ: [
                [0.686, 0.100, 0.400, 0.246, 0.286, 0.324, 0.200, 0.320],
                [0.710, 0.167, 0.425, 0.272, 0.336, 0.333, 0.200, 0.349],
                [0.732, 0.167, 0.475, 0.279, 0.412, 0.382, 0.233, 0.382],
            ],
        }
    },
    {STUDENT_7B: _ORIGINAL_7B},
)

_TABLE_4 = _plain_frame(
    "category",
    ["GALP", "LALP"],
    {
        "discourse": [42.3, 18.7],
        "math/symbols": [31.2, 48.6],
        "reasoning transitions": [12.8, 22.4],
        "other": [13.7, 10.3],
    },
)

# A slash stands between two settings, as in the paper.
_TABLE_5 = _plain_frame(
    "property",
    ["value"],
    {
        "samples": ["1/16"],
        "temperature": ["0.0/1.0"],
        "top-p": ["1.0/0.95"],
        "top-k": ["1/40"],
        "max tokens": ["42786+"],
    },
)
_TABLE_6 = _plain_frame(
    "property",
    ["value"],
    {
        "batch per device": ["1/2"],
        "gradient accumulation": ["8"],
        "learning rate": [None],
        "epochs": ["10/15"],
        "warmup ratio": ["0.0"],
        "bfloat16": ["True"],
    },
)
_TABLE_7 = _plain_frame(
    "property",
    ["value"],
    {
        "temperature": ["0.0/0.6"],
        "max tokens": ["32768"],
        "top-p": ["1/0.95"],
        "pass@k": ["1/8"],
        "samples": ["1/8"],
    },
)

_TABLE_11 = _plain_frame(
    "pair",
    ["cosine"],
    {
        "counting arrangements; prime factorization": [0.72],
        "circles and tangents; expected value": [0.68],
    },
)
_TABLE_12 = _plain_frame(
    "pair",
    ["cosine"],
    {
        "Bézout's identity": [0.96],
        "substitution into an equation": [0.94],
        "triangle inequality": [0.98],
        "definition of a partial sum": [0.97],
    },
)

_TABLE_15 = _frame(
    "data",
    ["GPQA"],
    {
        STUDENT_32B: {
            "original": [0.551],
            "all teachers": [0.439],
            "LIMO-32B": [0.626],
            "Sky-T1-32B-Preview": [0.566],
            "OpenThinker2-32B": [0.646],
            "galp": [0.611],
            "lalp": [0.702],
        }
    },
)

_TABLE_16 = _frame(
    "data",
    ["easy", "medium", "hard"],
    {
        STUDENT_32B: {
            "original": [0.890, 0.471, 0.114],
            "galp": [0.845, 0.588, 0.232],
            "lalp": [0.874, 0.633, 0.261],
        }
    },
)

_TABLE_17 = _frame(
    "data",
    [*BENCHMARKS, "GPQA"],
    {
        STUDENT_LLAMA: {
            "original": [0.726, 0.000, 0.450, 0.316, 0.216, 0.361, 0.300, 0.656],
            "all teachers": [0.794, 0.167, 0.725, 0.335, 0.432, 0.510, 0.200, 0.878],
            "galp": [0.796, 0.133, 0.625, 0.371, 0.437, 0.480, 0.200, 0.833],
            "lalp": [0.814, 0.167, 0.800, 0.368, 0.467, 0.490, 0.233, 0.883],
        }
    },
)

_TABLE_18 = _frame(
    "data",
    [*BENCHMARKS, "AVG"],
    {
        STUDENT_32B: {
            "original": [0.826, 0.121, 0.715, 0.295, 0.416, 0.461, 0.237, 0.439],
            "all teachers": [0.835, 0.400, 0.887, 0.335, 0.578, 0.559, 0.583, 0.597],
            "galp": [0.862, 0.442, 0.903, 0.338, 0.629, 0.634, 0.721, 0.647],
            "lalp": [0.911, 0.662, 0.969, 0.361, 0.658, 0.675, 0.850, 0.727],
        }
    },
)

_TABLE_19 = _frame(
    "data",
    [*BENCHMARKS, "AVG", "GPQA"],
    {
        STUDENT_32B: {
            "original": [0.824, 0.133, 0.700, 0.298, 0.422, 0.471, 0.233, 0.445, 0.551],
            "galp": [0.876, 0.433, 0.825, 0.331, 0.592, 0.636, 0.733, 0.632, 0.611],
            "LIMO-32B": [0.896, 0.433, 0.925, 0.346, 0.618, 0.630, 0.800, 0.664, 0.626],
            "Sky-T1-32B-Preview": [0.876, 0.200, 0.750, 0.301, 0.558, 0.507, 0.533, 0.532, 0.566],
            "OpenThinker2-32B": [0.922, 0.567, 0.900, 0.324, 0.648, 0.640, 0.833, 0.691, 0.646],
            "lalp": [0.902, 0.667, 1.000, 0.353, 0.653, 0.673, 0.833, 0.726, 0.694],
        }
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
_NOTE_GPQA = (
    "GPQA-Diamond of the 32B student trained on the lalp selection is 0.702 in Table 15 "
    "(Sec. C.11) and 0.694 in Table 19 (Sec. C.14)."
)
_NOTE_72B_THIRDS = (
    "Training on Qwen2.5-72B-Instruct's lowest or middle third leaves the 7B student below the "
    "original model (0.292 and 0.338 against 0.353)."
)
_NOTE_ALL_TEACHERS = (
    "Whether 'All 3 Teachers' trains on three responses per prompt or on one drawn at random is "
    "not stated."
)
_NOTE_EXAMPLES = "A few examples chosen by the authors, not a sample; formulas are lost."

_NEEDS_TRAINING = (
    "needs 7B to 32B students trained on the paper's responses, so GPUs: make plan PROFILE=paper"
)
_SETTING = "a list of settings, no result; {}"

_PAPER_TABLES = (
    ReferenceTable(
        "1",
        "AVG accuracy after training on the lowest, middle and highest GALP third of one "
        "teacher's responses",
        _TABLE_1,
        3,
        (
            "The original model's AVG is printed once and repeated here for each teacher.",
            _NOTE_72B_THIRDS,
        ),
        notebook="06_eval",
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "2",
        "AVG accuracy after training on one teacher's responses, and the teacher's mean "
        "GALP and LALP before training",
        _C4_TEACHERS.drop(index="original", level="teacher")[["AVG", "GALP", "LALP"]],
        3,
        (
            "The table itself was not in the text these numbers were read from: its values "
            "are those of its breakdown, Table 9.",
            _NOTE_LEVEL,
            _NOTE_OPPOSITE,
            _NOTE_WINDOW,
        ),
        notebook="04_selection",
        not_run="its accuracies: " + _NEEDS_TRAINING,
    ),
    ReferenceTable(
        "3",
        "Accuracy after training on one response per prompt, chosen by rule from the pool "
        "of three teachers",
        _TABLE_3,
        3,
        (
            "Printed twice in the text these numbers were read from, once with AVG alone.",
            _NOTE_ORIGINAL_MEAN,
            _NOTE_LOWEST_MEAN,
            "OLYMPIAD of the 7B student is highest under random (0.456), not lalp (0.441).",
            _NOTE_GPQA,
            "lalp beats the best single teacher (Table 2, QwQ-32B) by 0.007 for the 32B "
            "student while it also takes most responses from it (Table 8).",
            _NOTE_WINDOW,
        ),
        notebook="06_eval",
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "4",
        "Share of the summed token probability per token category, with full and with local "
        "context, percent",
        _TABLE_4,
        1,
        (
            "'Therefore' is the text's example of a discourse token (Sec. 7.4.1) and the table's "
            "example of a reasoning transition; how tokens were sorted is not stated.",
            "The local context is 'each split's prefix', which names no window.",
        ),
        notebook="02_token_attribution",
    ),
    ReferenceTable(
        "5",
        "How the teachers' responses were sampled",
        _TABLE_5,
        0,
        (
            "Two settings stand in one cell; which data came from which is not stated. Sec. C.9 "
            "samples at temperature 0.6, which is not among them.",
            "Responses may have more tokens (42786+) than the students' answers (32768, Table 7).",
        ),
        not_run=_SETTING.format("lalp sample has them as presets"),
    ),
    ReferenceTable(
        "6",
        "How the students were trained",
        _TABLE_6,
        0,
        (
            "Both learning rates are lost in the text these values were read from.",
            "Two settings stand in one cell; which student or data had which is not stated.",
            "Sec. C.9 trains for 5 epochs at a learning rate of 1e-5; 5 is not among 10/15.",
        ),
        notebook="05_sft",
        not_run=_SETTING.format("lalp train has them as recipes"),
    ),
    ReferenceTable(
        "7",
        "How the students' answers were sampled for evaluation",
        _TABLE_7,
        0,
        (
            "Two settings stand in one cell: greedy with one sample, or eight samples at "
            "temperature 0.6. Table 18 is the one with sampling.",
            "Pass@K is 1/8. Whether eight samples were averaged or the best one counted is not "
            "stated.",
        ),
        notebook="06_eval",
        not_run=_SETTING.format("lalp eval has them as presets"),
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
        notebook="04_selection",
    ),
    ReferenceTable(
        "9",
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
        not_run=_NEEDS_TRAINING + "; its GALP and LALP are those of Table 2",
    ),
    ReferenceTable(
        "10",
        "Table 3 by benchmark (Sec. C.4)",
        _C4_SELECTION,
        3,
        (_NOTE_ORIGINAL_MEAN, _NOTE_LOWEST_MEAN, _NOTE_MATH, _NOTE_WINDOW),
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "11",
        "Test responses and their nearest training responses, with cosine similarity (Sec. C.8)",
        _TABLE_11,
        2,
        (
            _NOTE_EXAMPLES,
            "Neither pair shares a topic, and both lie below the average of 0.760 (Fig. 2).",
        ),
        notebook="01_coverage",
    ),
    ReferenceTable(
        "12",
        "Test steps and their nearest training steps, with cosine similarity (Sec. C.8)",
        _TABLE_12,
        2,
        (
            _NOTE_EXAMPLES,
            "Their mean, 0.9625, lies above the average of 0.935 (Fig. 2): steps were shown at "
            "their best, responses (Table 11) at their worst.",
        ),
        notebook="01_coverage",
    ),
    ReferenceTable(
        "13",
        "Accuracy after training on each GALP third of one teacher's responses to MATH prompts "
        "(Sec. C.9)",
        _TABLE_13,
        3,
        (
            "Sec. C.5 announces QwQ-32B as the second teacher of this table; it shows "
            "Gemma3-27B-IT, and QwQ-32B stands in Table 14.",
            "Every third of Gemma3-27B-IT's responses leaves the 7B student below the original "
            "model (0.279, 0.313, 0.319 against 0.353).",
            _NOTE_72B_THIRDS,
        ),
        notebook="06_eval",
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "14",
        "Table 1 by benchmark (Sec. C.10)",
        _TABLE_14,
        3,
        (_NOTE_72B_THIRDS,),
        notebook="06_eval",
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "15",
        "GPQA-Diamond accuracy of 32B students trained on mathematics (Sec. C.11)",
        _TABLE_15,
        3,
        (
            _NOTE_GPQA,
            "Sec. 7.3 names this table for LiveCodeBench as well; that is Table 16.",
            "Training on all three teachers (0.439) is worse than no training (0.551), unlike on "
            "mathematics (Table 18).",
            _NOTE_ALL_TEACHERS,
        ),
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "16",
        "LiveCodeBench v2 accuracy by difficulty (Sec. C.11)",
        _TABLE_16,
        3,
        (
            "Sec. 7.3 calls these models trained on mathematics; Sec. C.11 trains them on 5,000 "
            "prompts of code.",
            "On easy problems the original model is best (0.890 against 0.874 for lalp).",
        ),
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "17",
        "Accuracy of a Llama student by training data (Sec. C.12)",
        _TABLE_17,
        3,
        (
            "GPQA of this 8B student (0.656 to 0.883) lies far above that of the 32B student "
            "(0.439 to 0.702, Table 15): not the same measure, though nothing says so.",
            "CN_MATH24 is highest for the original model (0.300); OLYMPIAD for all teachers "
            "(0.510), MINERVA for galp (0.371), not lalp.",
            "No AVG is printed.",
            _NOTE_ALL_TEACHERS,
        ),
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "18",
        "Table 3's 32B student with sampled instead of greedy answers (Sec. C.13)",
        _TABLE_18,
        3,
        (
            "lalp lies 0.080 above galp, not 0.094 as with greedy answers (Table 3).",
            "galp lies 0.050 above all teachers; with greedy answers it lies 0.019 below random "
            "(Table 3).",
            _NOTE_ALL_TEACHERS,
        ),
        not_run=_NEEDS_TRAINING,
    ),
    ReferenceTable(
        "19",
        "Accuracy of 32B students trained on this and on other data (Sec. C.14)",
        _TABLE_19,
        3,
        (
            _NOTE_ORIGINAL_MEAN,
            _NOTE_GPQA,
            "lalp's lead over OpenThinker2-32B is 0.035 in AVG; MATH and CN_MATH24 are not "
            "higher (0.902 against 0.922, 0.833 against 0.833).",
        ),
        not_run=_NEEDS_TRAINING,
    ),
)

_BY_NUMBER = {table.number: table for table in _PAPER_TABLES}
# The tables of Sec. C.4 are also found by what they hold.
TABLES: Mapping[str, ReferenceTable] = MappingProxyType(
    {**_BY_NUMBER, "C.4-teachers": _BY_NUMBER["9"], "C.4-selection": _BY_NUMBER["10"]}
)

FIGURES: Mapping[str, ReferenceFigure] = MappingProxyType(
    {
        figure.number: figure
        for figure in (
            ReferenceFigure(
                "1",
                "Teachers by mean GALP and by the accuracy of the student trained on them",
                (_NOTE_OPPOSITE,),
                notebook="04_selection",
                not_run="its accuracies: " + _NEEDS_TRAINING,
            ),
            ReferenceFigure(
                "2",
                "Similarity of test responses and of test steps to their nearest training one",
                ("The embedding model is not named.",),
                notebook="01_coverage",
            ),
            ReferenceFigure(
                "3",
                "Teacher ranks under LALP as the window grows",
                ("The paper's text says small windows are equally good, Fig. 9 finds a best one.",),
                notebook="04_selection",
            ),
            ReferenceFigure(
                "4",
                "Token categories among the low-probability tokens, with full and local context",
                ("Which probability counts as low is not stated.",),
                notebook="02_token_attribution",
            ),
            ReferenceFigure(
                "5",
                "Full-context minus local log-probability by position in the response",
                ("Full context lies above local context here, LALP above GALP in Table 2.",),
                notebook="03_self_conditioning",
            ),
            ReferenceFigure(
                "6",
                "Training loss of students trained on data selected by GALP, LALP and at random",
                notebook="05_sft",
                not_run=_NEEDS_TRAINING,
            ),
            ReferenceFigure("7", "Fig. 2 for a further test set", notebook="01_coverage"),
            ReferenceFigure("8", "Fig. 2 for a further test set", notebook="01_coverage"),
            ReferenceFigure(
                "9",
                "Accuracy after training by window size (Sec. C.7)",
                ("It finds a best window; Sec. 6 finds small windows equally good.",),
                notebook="06_eval",
                not_run=_NEEDS_TRAINING,
            ),
            ReferenceFigure(
                "10",
                "Accuracy against mean GALP of the training third, within one teacher (Sec. C.9)",
                notebook="06_eval",
                not_run=_NEEDS_TRAINING,
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
