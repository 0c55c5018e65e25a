"""Where a turn ends: what training puts behind a response, and what stops sampling."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from conftest import CHAT_TEMPLATE

from lalp.errors import InputError
from lalp.students.encoding import end_of_turn, stop_token_ids

EVERY = "{% for m in messages %}{{ m.content | trim }}@{% endfor %}"
LAST = "{{ messages[-1].content }}"
# The model's configuration names one end of its own.
CONFIG = SimpleNamespace(get_text_config=lambda: SimpleNamespace(eos_token_id=7))


@pytest.mark.parametrize(
    ("template", "end", "stops"),
    [
        (CHAT_TEMPLATE, "<|end|>\n", "<|end|>"),
        (EVERY.replace("@", "<|user|>"), "<|user|>", "<|user|>"),
        (EVERY.replace("@", " So"), " So", ""),  # text, which may stand within a response too
        # Nothing follows the answer, or it is not shown: the end is the tokenizer's.
        *((template, None, "") for template in (None, LAST, LAST + "\n\n", "fixed")),
    ],
)
def test_the_end_of_a_turn(template, end, stops, tokenizer):
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = template
    assert tokenizer.decode(end_of_turn(copied)) == (end or "<|end|>")
    ids = {7, tokenizer.eos_token_id, *tokenizer(stops).input_ids}
    assert stop_token_ids(copied, CONFIG, None) == ids
    assert stop_token_ids(copied, CONFIG, SimpleNamespace(eos_token_id=[8, 9])) == ids | {8, 9}
    copied.eos_token = None
    if end is None:
        with pytest.raises(InputError, match="could not learn to stop"):
            end_of_turn(copied)


def test_a_template_without_an_assistant(tokenizer):
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(InputError, match=r"refuses an assistant's message \(no\)"):
        end_of_turn(copied)
    assert stop_token_ids(copied, CONFIG, None) == {7, tokenizer.eos_token_id}


@pytest.mark.parametrize("eos", ["x", {"a": 1}, [1, "x"], 2.5])
def test_an_end_that_is_no_token_id_is_refused(eos, tokenizer):
    with pytest.raises(InputError, match=r"end token .* is no token id: mend eos_token_id"):
        stop_token_ids(tokenizer, CONFIG, SimpleNamespace(eos_token_id=eos))
