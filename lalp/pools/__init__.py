"""Prompts and their responses by several teachers: reading, checking, writing."""
