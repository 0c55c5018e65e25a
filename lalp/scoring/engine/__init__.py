"""Nothing here changes a score: this is how scores are computed fast."""
