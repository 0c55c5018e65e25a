"""Notebooks 04 and 10: how rules rank teachers and choose responses."""
