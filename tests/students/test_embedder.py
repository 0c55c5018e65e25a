"""Sentence embeddings: loading, cutting at the input's limit, batching, and what is kept."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lalp.errors import InputError
from lalp.students import embedder as students_embedder
from lalp.students.embedder import (
    count_tokens,
    cut_pieces,
    embed_texts,
    embedder_revision,
    input_limit,
    load_embedder,
    load_embeddings,
    normalize_rows,
)

LIMIT = 10
WORDS = ["we", "add", "two", "and", "three", "so", "the", "sum", "is", "five", "then", "square"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory) -> Path:
    """A tiny BERT with random weights that reads ten tokens; "fives" is two tokens."""
    folder = tmp_path_factory.mktemp("embedder")
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS, "##s", "."])}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{token.lower()[1:-1]}_token": token for token in SPECIAL}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, **names)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 32, "vocab_size": len(vocabulary)}
    config = BertConfig(**sizes, initializer_range=0.5)
    BertModel(config).eval().save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=LIMIT + 2)
    model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="session")
def embedder(embedder_folder) -> SentenceTransformer:
    return load_embedder(str(embedder_folder))


def sentence(size: int, start: int = 0) -> str:
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(size))


texts_of_words = st.lists(
    st.lists(st.sampled_from([*WORDS, "fives", "unheard", "."]), max_size=30).map(" ".join),
    max_size=5,
)
reuse_fixtures = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# --- embedding --------------------------------------------------------------------------------


def test_vectors_are_those_of_the_library_which_drops_what_exceeds_its_input(embedder):
    assert input_limit(embedder) == LIMIT
    sizes = [3, 17, LIMIT, 1, 7, 10, 2]
    texts = [sentence(size) for size in sizes]
    vectors = embed_texts(embedder, texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(
        vectors, embedder.encode(texts, normalize_embeddings=True), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    assert count_tokens(embedder, texts).tolist() == sizes


@reuse_fixtures
@given(texts_of_words, st.booleans(), st.sampled_from([1, 30, 4096]))
def test_a_text_is_embedded_alike_in_any_company(embedder, texts, chunk_mean, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(students_embedder, "_BATCH_TOKENS", batch)
        together = embed_texts(embedder, [*texts, *texts[::-1]], chunk_mean=chunk_mean)
    assert together.shape == (2 * len(texts), 16)
    for text, vector, again in zip(texts, together, together[::-1], strict=False):
        alone = embed_texts(embedder, [text], chunk_mean=chunk_mean)[0]
        np.testing.assert_allclose(vector, alone, atol=1e-5)
        np.testing.assert_array_equal(vector, again)


def test_no_texts_and_empty_texts(embedder):
    assert embed_texts(embedder, []).shape == embed_texts(embedder, [], chunk_mean=True).shape
    assert np.isfinite(embed_texts(embedder, ["", "  "], chunk_mean=True)).all()
    assert count_tokens(embedder, ["", "we add"]).tolist() == [0, 2]
    assert count_tokens(embedder, []).tolist() == []
    rows = normalize_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], atol=1e-7)


def test_chunk_mean_weights_pieces_by_their_tokens(embedder):
    # 13 tokens; a cut after 7 would fall into "fives", so the pieces have 6 and 7 tokens.
    text = sentence(6) + " fives " + sentence(5)
    assert cut_pieces(embedder, text) == [sentence(6) + " ", "fives " + sentence(5)]
    first, second = embed_texts(embedder, cut_pieces(embedder, text)).astype(float)
    expected = 6 * first + 7 * second
    found = embed_texts(embedder, ["we add", text], chunk_mean=True)
    np.testing.assert_allclose(found[1], expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(found[0], embed_texts(embedder, ["we add"])[0], atol=1e-6)


@reuse_fixtures
@given(st.text(alphabet=st.sampled_from("ab 五.\n𝔸é"), max_size=120) | texts_of_words.map(" ".join))
def test_pieces_hold_the_whole_text(embedder, text):
    pieces = cut_pieces(embedder, text)
    assert "".join(pieces) == text
    lengths = count_tokens(embedder, pieces)
    assert lengths.max() <= LIMIT
    assert lengths.sum() >= count_tokens(embedder, [text])[0]


@pytest.mark.parametrize("size", [9, 10, 11, 20, 21, 57])
def test_pieces_are_few_and_even(embedder, size):
    lengths = count_tokens(embedder, cut_pieces(embedder, sentence(size)))
    assert len(lengths) == -(-size // LIMIT)
    assert lengths.max() - lengths.min() <= 1


def test_a_word_longer_than_the_input_is_cut_within(embedder):
    text = "we add five" + "s" * 30
    pieces = cut_pieces(embedder, text)
    assert "".join(pieces) == text
    assert count_tokens(embedder, pieces).max() <= LIMIT


def test_a_prompt_takes_its_share_of_the_input(embedder_folder):
    model = load_embedder(str(embedder_folder))
    model.prompts, model.default_prompt_name = {"query": "we add "}, "query"
    assert input_limit(model) == LIMIT - 2


# --- loading ----------------------------------------------------------------------------------


def test_what_is_no_embedder_is_refused(embedder_folder, tmp_path):
    for name, message in [
        ("./none", "no such folder: check the path"),
        ("no-such-org/no-such-model", "cannot be loaded: .* Give all-minilm-l6-v2, a folder"),
        (str(embedder_folder.parent / "bert"), r"no modules\.json"),
    ]:
        for load in (load_embedder, embedder_revision):
            with pytest.raises(InputError, match=f"^embedder '{name}'.* ?{message}.*$"):
                load(name)
    folder = shutil.copytree(embedder_folder, tmp_path / "copy")
    next(folder.rglob("*.safetensors")).write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_embedder(str(folder))


def test_weights_that_its_files_lack_are_not_made_up(embedder_folder, tmp_path):
    shutil.copytree(embedder_folder, tmp_path / "embedder")
    (file,) = (tmp_path / "embedder").rglob("model.safetensors")
    weights = load_file(file)
    kept = {name: weights[name] for name in weights if not name.startswith("pooler.")}
    save_file(kept, file, {"format": "pt"})
    load_embedder(str(tmp_path / "embedder"))  # the mean of hidden states needs no pooler
    del kept["encoder.layer.1.output.dense.weight"]
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack the weights encoder\.layer\.1\.output"):
        load_embedder(str(tmp_path / "embedder"))


def test_the_revision_follows_the_files_not_the_place(embedder_folder, tmp_path):
    folder = shutil.copytree(embedder_folder, tmp_path / "copy")
    before = embedder_revision(str(folder))
    assert before == embedder_revision(str(embedder_folder))
    pooling = next(folder.rglob("*Pooling/config.json"))
    pooling.write_text(re.sub("mean", "cls", pooling.read_text()))
    assert embedder_revision(str(folder)) != before


# --- what is kept -----------------------------------------------------------------------------


def test_kept_embeddings_are_read_without_the_embedder(embedder_folder, tmp_path, monkeypatch):
    texts, name = [sentence(3), sentence(17), sentence(3)], str(embedder_folder)
    first = load_embeddings(name, texts, folder=tmp_path)
    monkeypatch.setattr(students_embedder, "load_embedder", lambda name: pytest.fail("again"))
    again = load_embeddings(name, texts, folder=tmp_path)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert again.num_tokens.tolist() == [3, 17, 3]
    assert again.limit == LIMIT
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    for other in ({"texts": texts[::-1][:2]}, {"texts": texts, "chunk_mean": True}):
        with pytest.raises(pytest.fail.Exception, match="again"):
            load_embeddings(name, **other, folder=tmp_path)


@pytest.mark.parametrize("damage", ["half", "empty", "pickle", "other"])
def test_a_damaged_file_is_made_anew(embedder_folder, tmp_path, damage, caplog):
    texts, name = [sentence(3), sentence(5)], str(embedder_folder)
    first = load_embeddings(name, texts, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    if damage in ("half", "empty"):
        path.write_bytes(path.read_bytes()[: 200 if damage == "half" else 0])
    else:
        arrays = {"vectors": np.array([{}])} if damage == "pickle" else {"rows": np.eye(2)}
        with path.open("wb") as file:
            np.savez(file, **arrays)
    again = load_embeddings(name, texts, folder=tmp_path)
    np.testing.assert_allclose(first.vectors, again.vectors, atol=1e-6)
    assert "embedding anew" in caplog.text
    caplog.clear()
    load_embeddings(name, texts, folder=tmp_path)
    assert not caplog.text


# --- the packaged embedder --------------------------------------------------------------------


@pytest.mark.slow
def test_the_packaged_embedder_tells_meaning():
    model = load_embedder()
    assert input_limit(model) == 254
    texts = ["Adding both equations gives x = 2.", "The triangle has a right angle at B."]
    alike = "We add the two equations and find that x equals 2."
    one, other, alike = embed_texts(model, [*texts, alike])
    assert one @ alike > 0.7 > 0.4 > one @ other
    long = " ".join(["Then we take the sum of the next two terms of the sequence."] * 60)
    halves = embed_texts(model, [long], chunk_mean=True)[0]
    assert len(cut_pieces(model, long)) > 2
    assert halves @ embed_texts(model, [long])[0] > 0.9
