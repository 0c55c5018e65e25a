"""Score responses with the paper's equations and an engine that computes them fast."""
