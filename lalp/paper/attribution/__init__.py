"""Notebook 02: which tokens carry the score (Table 4)."""
