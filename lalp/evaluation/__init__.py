"""Accuracy on benchmarks: problems, graded answers, intervals, comparisons."""
