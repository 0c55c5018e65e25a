"""Long reasoning traces by the paper's own kind of teachers: their pool and the plan of its run."""

from lalp.paper.traces.grades import accuracy_table
from lalp.paper.traces.pool import load_traces

__all__ = ["accuracy_table", "load_traces"]
