"""Students: models, tokenizers, and the tokens of a prompt and a response."""
