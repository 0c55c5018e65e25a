"""Notebook 00: the CHAMP pool."""
