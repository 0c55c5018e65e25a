"""Score responses: the paper's equations, and what makes them fast."""
