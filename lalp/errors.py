"""The one error that means bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from outside: the message says what is wrong, where, and what to do.

    Example:
        >>> import lalp
        >>> try:
        ...     lalp.load_pool("none.jsonl")
        ... except lalp.InputError as error:
        ...     print(error)
        none.jsonl: no such file
    """
