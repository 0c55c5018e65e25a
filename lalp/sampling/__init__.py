"""Draw answers from a model, reproducibly, and verify them."""
