"""How scores are computed fast. Nothing here changes a score."""
