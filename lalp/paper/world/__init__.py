"""Notebook 08: step world, where everything can be measured."""
