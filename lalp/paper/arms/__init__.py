"""Notebooks 05 and 06: students trained on what each rule selects."""
