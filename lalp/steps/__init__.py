"""Cut responses into steps: spans of the original text."""
