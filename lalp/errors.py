"""The one error that means bad input, and what other errors say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input from outside: the message says what is wrong, where, and what to do.

    Example:
        >>> import lalp
        >>> try:
        ...     lalp.load_pool("none.jsonl")
        ... except lalp.InputError as error:
        ...     print(error)
        none.jsonl: no such file: check the path
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


def one_line(text: str, width: int = 900) -> str:
    r"""A text of at most ``width`` characters that any terminal can show.

    Of a longer one the middle is left out: it begins with the place, and ends in advice.

    Example:
        >>> one_line("Two\nlines \x1b[31m", 20)
        'Two lines \\x1b[31m'
        >>> one_line("a.jsonl, line 3: " + 2000 * "x" + ": rename it", 40)
        'a.jsonl, line 3: xxxxxxx...x: rename it'
    """
    pieces = [text] if len(text) <= 2 * width else [text[:width], text[-width:]]
    shown = "".join(" ".join(piece.splitlines()) for piece in pieces)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    if len(shown) <= width:
        return shown
    end = width // 3
    return f"{shown[: width - end - 3]}...{shown[-end:]}"


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """What a misspelt name may stand for, and all names that there are: the end of a message.

    Example:
        >>> did_you_mean("glap", ["random", "galp", "rsr"])
        "did you mean 'galp'? There are random, galp, rsr"
        >>> did_you_mean("best", ["random", "galp"])
        'there are random, galp'
    """
    names = [str(one) for one in known]
    listed = f"there are {', '.join(names)}" if names else "there are none"
    close = likeliest(name, names)
    return f"{close} {listed[0].upper()}{listed[1:]}" if close else listed


def no_such(what: str, name: str, known: Sequence[str]) -> str:
    """That a name is not among many, with those nearest to it, or the first ones.

    Example:
        >>> no_such("prompt", "p9", ["alpha", "beta", "gamma", "delta"])
        "no prompt 'p9': did you mean 'alpha' or 'beta' or 'gamma'?"
    """
    close = close_names(name, known, n=3, cutoff=0.5) or known[:3]
    return f"no {what} {name!r}: did you mean {' or '.join(map(repr, close)) or 'another table'}?"


def likeliest(name: object, known: Iterable[object]) -> str:
    """The question what a misspelt name may stand for; nothing where no name is near.

    Example:
        >>> likeliest("pol.jsonl", ["pool.jsonl", "scores.parquet"]), likeliest("best", ["galp"])
        ("did you mean 'pool.jsonl'?", '')
    """
    close = close_names(name, known)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def close_names(
    name: object, known: Iterable[object], n: int = 2, cutoff: float = 0.6
) -> list[str]:
    """At most ``n`` names that are spelt nearly like one, the nearest first.

    Example:
        >>> close_names("GLAP", ["random", "rsr", "galp"])
        ['galp']
    """
    names: dict[str, str] = {}
    for one in map(str, known):
        names.setdefault(one.casefold(), one)
    near = difflib.get_close_matches(str(name).casefold(), names, n, cutoff)
    return [names[one] for one in near]
