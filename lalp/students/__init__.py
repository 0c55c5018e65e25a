"""Students: models, tokenizers, and how a prompt and a response become tokens."""
