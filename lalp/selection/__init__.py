"""Rank teachers, and select what to train on."""
