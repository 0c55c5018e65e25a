"""The paper's analyses, one module each."""
