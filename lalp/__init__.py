"""Which reasoning traces teach a student best? Score them step by step, rank teachers, select.

A replication of "The Signal is in the Steps: Local Scoring for Reasoning Data Selection"
(arXiv 2510.03988), and the tool that comes out of it.
"""

from importlib import import_module
from typing import Any

from lalp.extras import require

__version__ = "0.1.0"

# Where each public name is defined.
_HOMES = {
    "InputError": "errors",
    "Pool": "pools.pool",
    "describe_scores": "selection.table",
    "load_pool": "pools.reading",
    "load_scores": "scoring.table",
    "load_student": "students.student",
    "means_by_window": "selection.plots",
    "plot_scores": "selection.plots",
    "plot_teacher_means": "selection.plots",
    "plot_window_sweep": "selection.plots",
    "rank_teachers": "selection.ranking",
    "score": "scoring.run",
    "select": "selection.rules",
    "token_heat_map": "scoring.heat_map",
    "write_heat_map": "scoring.heat_map",
    "write_training": "pools.writing",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `lalp check` need not wait for torch."""
    if _HOMES.get(name) == "selection.plots":
        require("plots", f"lalp.{name}")
    if name in _HOMES:
        return getattr(import_module(f"lalp.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lalp' has no attribute {name!r}")
