"""Chat templates: small programs that come with a student and so run under limits.

A template may loop for ever or fill the memory, by mistake or on purpose. transformers runs it in
Jinja's sandbox, which protects files and Python's own objects, but limits neither of these.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lalp.errors import reason

SECONDS = 3.0  # seconds that a template may take for one chat; sound ones take a thousandth
_MEMORY = 1 << 30  # bytes that it may take meanwhile
# Characters that it may add, for example as an introduction, and as a multiple of the chat's.
_LENGTH, _TIMES = 200_000, 10

# Text before two stars in a call such as `f(**x)`; elsewhere the stars are a power.
_BEFORE_KEYWORDS = "(", ","


_slow: set[str] = set()
"""Templates that took too long once; they are not tried again."""


class _OutOfTime(BaseException):
    """Not an Exception, because a template's code or the library's could swallow that."""


def apply_template(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Mapping[str, Any]], **options: Any
) -> str:
    """The text of a chat by the tokenizer's template; ``options`` are transformers'.

    Raises:
        ValueError: If the template refuses the chat, is broken, or exceeds a limit.
    """
    try:
        template = tokenizer.get_chat_template()
        _check_operators(template)
        if template in _slow:
            raise _OutOfTime
        with _limits():
            turns = [dict(turn) for turn in chat]
            text = tokenizer.apply_chat_template(turns, tokenize=False, **options)
            text.encode("utf-8")  # a lone surrogate is no text
    except _OutOfTime:
        _slow.add(template)  # otherwise each of many calls would take as long
        raise ValueError(f"it takes longer than {SECONDS:.0f} seconds") from None
    except RecursionError:
        raise ValueError("it calls itself, or is nested, without end") from None
    except Exception as error:  # templates may raise anything
        raise ValueError(reason(error)) from error
    given = sum(len(str(part)) for part in (*chat, *options.get("tools", ())))
    if len(text) > _LENGTH + _TIMES * given:
        raise ValueError(f"it writes {len(text):,} characters for a chat of {given:,}")
    return text


@lru_cache(maxsize=8)
def _check_operators(template: str) -> None:
    """Refuse powers: 10 ** 10 ** 10 never ends, and nothing can interrupt it."""
    before = ""
    for _, kind, value in Environment().lex(template):
        if kind == "operator" and value == "**" and before not in _BEFORE_KEYWORDS:
            raise TemplateError("it computes a power")
        if kind != "whitespace":
            before = value


@contextmanager
def _limits() -> Iterator[None]:
    """Limit the time (if this is the main thread) and the memory of the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most if soft < 0 else min(most, soft), hard))
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:  # signals reach no other thread
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        if is_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _stop(*_: Any) -> None:
    raise _OutOfTime
