"""Score reasoning traces step by step under a student model, rank teachers, select what to train on.

A replication of "The Signal is in the Steps: Local Scoring for Reasoning Data Selection"
(arXiv 2510.03988), and the tool that comes out of it.
"""

from lalp.records import InputError, Pool, load_pool
from lalp.selection import rank_teachers, select
from lalp.store import load_scores, score
from lalp.students import load_student

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Pool",
    "load_pool",
    "load_scores",
    "load_student",
    "rank_teachers",
    "score",
    "select",
]
