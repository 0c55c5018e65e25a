"""The one error that means bad input, and what other errors say."""

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


def reason(error: BaseException, width: int = 200) -> str:
    r"""What an exception says, in one line that any terminal can show.

    Example:
        >>> reason(ValueError("Bad mark \x1b[31m.\nMore of it."))
        'Bad mark \\x1b[31m'
    """
    if isinstance(error, MemoryError):
        return "not enough memory"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(lines[0].rstrip(".: "), width)


def one_line(text: str, width: int = 1000) -> str:
    r"""A text of at most ``width`` characters that any terminal can show; the rest is cut off.

    Example:
        >>> one_line("Two\nlines \x1b[31m", 20)
        'Two lines \\x1b[31m'
    """
    text = " ".join(text[: 2 * width].splitlines())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= width else f"{text[: width - 3]}..."
