"""Processes that sample, as those of the command."""

from tests.cli.conftest import start

__all__ = ["start"]
