"""The engine that computes scores fast; nothing here changes a score."""
