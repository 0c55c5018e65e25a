"""Is an answer right? Extraction, equivalence, and workers with a time limit."""
