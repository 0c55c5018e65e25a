"""Chat templates that loop, fill the memory, reach for files, or refuse."""

from __future__ import annotations

import copy
import resource
import signal
import time

import pytest

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt
from lalp.students import templates
from lalp.students.encoding import end_of_turn, render_prompt

PROMPT = Prompt("p", (Message("user", "Add 3 and 4."),))
LOOP = "{% for x in range(99999) %}"
HOSTILE = {
    "loops": LOOP * 4 + "{% endfor %}" * 4,
    "loops and writes": LOOP * 3 + "{{ 'x' * 1000 }}" + "{% endfor %}" * 3,
    "doubles a text": (
        "{% set n = namespace(s='x' * 9999) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}"
        "{% endfor %}{{ n.s }}"
    ),
    "writes 10 GB": "{{ 'x' * 10000000000 }}",
    "pads to 10 GB": "{{ '%9999999999d' % 1 }}",
    "computes a power": "{{ 10 ** 10 ** 10 }}",
    "writes a million letters": "{{ 'x' * 1000000 }}",
    "writes nothing": "{{ messages.nothing }}",
    "reads a file": "{% include '/etc/passwd' %}",
    "reaches for Python": "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
    "is broken": "{% for m in messages %}{{ m.content }",
    "divides by nothing": "{{ 1 // 0 }}",
    "adds text and number": "{{ messages[0].content + 1 }}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "is 5,000 deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "writes a lone surrogate": "{{ '\\ud800' }}",
    "refuses with control codes": "{{ raise_exception('no\x1b[31m' * 500) }}",
}


@pytest.fixture
def templated(tokenizer):
    """The tests' tokenizer with another template."""

    def make(template: str):
        other = copy.deepcopy(tokenizer)
        other.chat_template = template
        return other

    return make


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_in_a_line(name, templated, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 0.5)
    limit, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    start = time.monotonic()
    with pytest.raises(
        InputError, match="prompt 'p': the student's chat template refuses"
    ) as error:
        render_prompt(templated(HOSTILE[name]), PROMPT)
    assert time.monotonic() - start < 30
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 450
    # Nothing of the limits is left behind.
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_template_that_loops_is_refused_where_its_end_of_turn_is_asked_for(
    templated, monkeypatch
):
    monkeypatch.setattr(templates, "SECONDS", 0.2)
    with pytest.raises(InputError, match="it takes longer than 0 seconds"):
        end_of_turn(templated(HOSTILE["loops"]))


def test_keywords_are_no_power(templated):
    template = "{% set ns = dict(a='x') %}{% macro f() %}{{ kwargs.a }}{% endmacro %}{{ f(**ns) }}"
    assert render_prompt(templated(template), PROMPT) == "x"
    assert render_prompt(templated("**Think**, {{ messages[0].content }}"), PROMPT).startswith("**")


def test_a_slow_template_has_its_time_once(templated, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 0.5)
    slow = templated(LOOP * 3 + "{{ 'one more' }}" + "{% endfor %}" * 3)
    start = time.monotonic()
    for _ in range(50):
        with pytest.raises(InputError, match="it takes longer than"):
            render_prompt(slow, PROMPT)
    assert time.monotonic() - start < 20
