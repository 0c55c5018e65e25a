"""Steps by a language model (paper, Sec. B.1), over any OpenAI-compatible endpoint.

The model is asked for the solution's logical sub-steps as JSON. Of its answer only the places of
the boundaries are taken: the answer's words are aligned to the words of the original text, so that
neither rewording nor broken LaTeX ever enters a step. Where too little of the text is found again,
the response is cut into sentences instead, and the reason is kept.

Every answer is kept under ``build/`` as soon as it is there: a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lalp.assets import build_dir
from lalp.records import InputError, Pool, Prompt, Response, atomic_path
from lalp.segmentation import Span, split_sentences

# Imported where it is needed: it is an extra, and takes a second.
if TYPE_CHECKING:
    from openai import OpenAI

# The only place that a key is read from; local servers need none.
API_KEY_VARIABLE = "LALP_LLM_API_KEY"

# After Sec. B.1. ``{problem}`` and ``{solution}`` are filled in.
INSTRUCTION = r"""Below are a problem and a solution to it. Divide the solution into its logical \
steps: groups of neighbouring sentences that together make one move of the argument.

Rules:
- Copy the solution's own words. Do not correct, shorten, translate or explain anything.
- Leave nothing out: put together, the steps are the whole solution, in its order.
- Answer with JSON alone, of this form: {"steps": ["first step", "second step", ...]}
- Inside JSON strings, write a backslash as \\ and a double quote as \".

Problem:
{problem}

Solution:
{solution}
""".replace("\\\n", "")

# Transport errors of a server that was reached, so that other requests may fare better.
_BROKEN_OFF = {"ReadError", "WriteError", "RemoteProtocolError"}
# Less of the text than this found again in the answer, and its boundaries are not to be trusted.
MIN_COVERAGE = 0.8

# Letters and digits apart, so that "2x" and "2 x" are the same words; each ideograph is one.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|\d+|[^\W\d_{_IDEOGRAPH}]+")
_PLACEHOLDER = re.compile(r"\{(problem|solution)\}")
_FENCE = re.compile(r"```\w*\s*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"\{\s*[\"'}]|\[\s*[\"'{\[\]]")
# Of broken JSON. A quote ends a string only if JSON goes on after it; the last may lack its end.
_TOKEN = re.compile(
    r'"(?P<name>[^"\\]*)"\s*:|"(?P<string>(?:\\.|[^\\])*?)"(?=\s*(?:,?\s*(?:["\[\]{}]|\Z)))'
    r'|"(?P<rest>.*)\Z|(?P<open>[\[{])|(?P<close>[\]}])',
    re.DOTALL,
)
# A backslash that JSON does not know, or that LaTeX means by what JSON reads as a control
# character: "\frac" holds no form feed.
_LATEX_BACKSLASH = re.compile(r'\\(?:(["\\/n]|u[0-9a-fA-F]{4}|[bfrt](?![a-zA-Z]))|)')
_GAP = re.compile(r"\s+")
_LINE_GAP = re.compile(r"\s*\n\s*")
# An answer may drop as many words where a sentence begins, and still mean its beginning.
_FEW_WORDS = 3
# Words of a phrase that can anchor an alignment if both texts hold it once.
_PHRASE = 4
# Pairs of equal words between two anchors; with more (the same few words over and over, with no
# phrase that occurs once) nothing is aligned there, for it would take minutes.
_MAX_PAIRS = 1_000_000


@dataclass(frozen=True)
class LlmSteps:
    """Steps of a pool's responses, and why some of them are sentences after all.

    Attributes:
        steps: Character spans by response id; each list partitions its response's text.
        fallbacks: By response id, why its steps are sentences.
    """

    steps: dict[str, list[Span]]
    fallbacks: dict[str, str]


@dataclass(frozen=True)
class _Answer:
    """What the server said: the text, and whether it was cut at the length limit."""

    text: str
    cut_off: bool


def split_with_llm(
    pool: Pool,
    url: str,
    model: str,
    *,
    instruction: str = INSTRUCTION,
    concurrency: int = 16,
    timeout: float = 600.0,
    max_retries: int = 4,
    cache: Path | None = None,
    progress: bool = True,
) -> LlmSteps:
    """Cut every response of a pool into the steps that a language model sees in it (Sec. B.1).

    Requests that fail for a while (429, 5xx, time-outs) are tried again with growing pauses.

    Args:
        pool: From `load_pool`.
        url: Base URL of the server, for example ``http://localhost:8000/v1``. A key, if it asks
            for one, is read from the environment variable ``LALP_LLM_API_KEY``.
        model: The model's name on that server.
        instruction: Message to send; holds ``{solution}``, and ``{problem}`` if it likes.
        concurrency: Requests under way at once.
        timeout: Seconds to wait for one answer.
        max_retries: Further tries of a request.
        cache: Folder of the answers; ``build/llm_steps`` if not given.
        progress: Show how many answers are there.

    Raises:
        InputError: If the extra ``llm`` is not installed, the instruction lacks ``{solution}``,
            the server cannot be reached or refuses the key or model, or no request succeeds.
    """
    if "{solution}" not in instruction:
        raise InputError(
            "the instruction lacks {solution}, where each response is to stand: add it"
        )
    _check_installed()
    folder = cache or build_dir() / "llm_steps"
    questions = {
        response.response_id: _fill(instruction, pool.prompts[response.prompt_id], response)
        for response in pool.responses
        if response.text.strip()
    }
    places = {name: folder / f"{_digest(model, text)}.json" for name, text in questions.items()}
    answers = {path: _read_answer(path) for path in set(places.values())}
    missing = {places[name]: text for name, text in questions.items() if not answers[places[name]]}
    answers |= _ask_missing(missing, url, model, concurrency, timeout, max_retries, progress)
    if answers and not any(isinstance(answer, _Answer) for answer in answers.values()):
        why, count = Counter(answers.values()).most_common(1)[0]
        raise InputError(
            f"{url}: no response got an answer, {count} of {len(answers)} because: {why}"
        )
    steps, fallbacks = {}, {}
    for response in pool.responses:
        answer = answers[places[response.response_id]] if response.response_id in places else ""
        steps[response.response_id], why = (
            split_by_answer(response.text, answer.text, answer.cut_off)
            if isinstance(answer, _Answer)
            else (split_sentences(response.text), answer or "the response is blank")
        )
        if why:
            fallbacks[response.response_id] = why
    return LlmSteps(steps, fallbacks)


def load_instruction(path: str | Path) -> str:
    """Read an instruction for `split_with_llm` from a text file.

    Raises:
        InputError: If the file cannot be read or lacks ``{solution}``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: the instruction cannot be read ({reason})") from error
    if "{solution}" not in text:
        raise InputError(f"{path}: lacks {{solution}}, where each response is to stand: add it")
    return text


def split_by_answer(text: str, answer: str, cut_off: bool = False) -> tuple[list[Span], str | None]:
    """Steps of ``text`` as a model's answer gives them; sentences, and why, where it is no use.

    Args:
        text: The original response.
        answer: What the model wrote, JSON or nearly so.
        cut_off: Whether the server stopped it at its length limit.

    Returns:
        Spans that partition ``text``, whatever the answer, and the reason if they are sentences.
    """
    words = _words(text)
    best, coverage = None, 0.0
    for pieces in _readings(answer):
        found = _align(words, pieces)
        share = sum(place >= 0 for place, _ in found) / max(1, len(words))
        if best is None or share > coverage:
            best, coverage = found, share
        if coverage >= MIN_COVERAGE:
            return _cut(text, _boundaries(text, words, best)), None
    if cut_off:
        why = f"the answer was cut off at the length limit ({coverage:.0%} of the words)"
    elif best is None:
        why = "the answer holds no steps" if answer.strip() else "the answer is empty"
    else:
        why = f"too little of the text is found in the answer ({coverage:.0%} of the words)"
    return split_sentences(text), why


# --- asking -------------------------------------------------------------------------------------


def _fill(instruction: str, prompt: Prompt, response: Response) -> str:
    # In one pass: a problem may itself hold "{solution}".
    problem = "\n\n".join(m.content for m in prompt.messages if m.role == "user")
    values = {"problem": problem, "solution": response.text}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], instruction)


def _digest(model: str, question: str) -> str:
    text = json.dumps([model, question], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _check_installed() -> None:
    if find_spec("openai") is None:
        raise InputError(
            "the llm splitter needs the package openai: install it with pip install 'lalp[llm]'"
        )


def _ask_missing(
    questions: Mapping[Path, str],
    url: str,
    model: str,
    concurrency: int,
    timeout: float,
    max_retries: int,
    progress: bool,
) -> dict[Path, _Answer | str]:
    """Ask what is not kept yet and keep the answers; where there is none, say why."""
    if not questions:
        return {}
    from openai import OpenAI

    # A key is never taken from OPENAI_API_KEY: it would go to whatever server the URL names.
    key = os.environ.get(API_KEY_VARIABLE) or "none"
    client = OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=max_retries)
    # Where not silenced here, tqdm still heeds TQDM_DISABLE.
    options = {} if progress else {"disable": True}
    with (
        _workers(concurrency) as pool,
        tqdm(total=len(questions), unit="response", **options) as bar,
    ):
        jobs = {pool.submit(_ask, client, model, q, path): path for path, q in questions.items()}
        answers = {}
        for job in as_completed(jobs):
            answers[jobs[job]] = job.result()
            bar.update(1)
    return answers


@contextmanager
def _workers(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads; when one fails for good, nothing more is asked, but what is under way is kept."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ask(client: OpenAI, model: str, question: str, path: Path) -> _Answer | str:
    """Ask one question and keep the answer; where there is none, say why.

    Raises:
        InputError: If no other question would fare better: no such server, key or model.
    """
    import openai

    try:
        completion = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0
        )
    except openai.APITimeoutError:
        return "no answer within the time limit"
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ in _BROKEN_OFF:
            return "the connection broke off"
        raise InputError(
            f"{client.base_url} cannot be reached ({error.__cause__ or error}): start the server "
            "or mend the URL, then run again; answers so far are kept"
        ) from error
    except (
        openai.AuthenticationError,
        openai.PermissionDeniedError,
        openai.NotFoundError,
    ) as error:
        raise InputError(
            f"{client.base_url} refuses the request ({_one_line(error)}): check the URL, the "
            f"model's name {model!r}, and the key in {API_KEY_VARIABLE}"
        ) from error
    except openai.APIStatusError as error:
        return f"the server answered with HTTP {error.status_code}"
    except (openai.OpenAIError, ValueError):
        return "the server's answer is no chat completion"
    answer = _first_choice(completion)
    if isinstance(answer, _Answer):
        _write_answer(path, model, question, answer)
    return answer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _first_choice(completion: Any) -> _Answer | str:
    """The first choice's text; the client lets replies of any form by."""
    choices = getattr(completion, "choices", None)
    message = (
        getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    )
    if message is None:
        return "the server's answer is no chat completion"
    text = getattr(message, "content", None)
    if not isinstance(text, str) or not text.strip():
        return "the answer is empty"
    return _Answer(text, getattr(choices[0], "finish_reason", None) == "length")


def _write_answer(path: Path, model: str, question: str, answer: _Answer) -> None:
    record = {
        "model": model,
        "question": question,
        "answer": answer.text,
        "cut_off": answer.cut_off,
    }
    with atomic_path(path) as temporary:
        # ASCII, so that even half of a surrogate pair can be written.
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _read_answer(path: Path) -> _Answer | None:
    """An answer that was kept; None where there is none, or a broken one: it is asked again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _Answer(str(record["answer"]), bool(record["cut_off"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- reading an answer ----------------------------------------------------------------------------


class _Pairs(list):
    """A JSON object as (name, value) pairs: in a dict, a group named twice would lose its half."""


def _readings(answer: str) -> Iterator[list[str]]:
    """Lists of steps that the answer may mean, the most literal first."""
    body = answer.rpartition("</think>")[2]
    for part in [*_FENCE.findall(body), body]:
        repaired = _LATEX_BACKSLASH.sub(lambda match: match[0] if match[1] else r"\\", part)
        openings = [match.start() for match in _OPENING.finditer(repaired)]
        values = [value for value in (_strict(repaired, i) for i in openings[:50]) if value]
        if values:
            yield _pieces(max(values, key=lambda value: value[1])[0])
        if openings:
            yield _pieces(_lenient(repaired[openings[0] :]))


def _strict(text: str, place: int) -> tuple[Any, int] | None:
    """The JSON value that begins there, and its length, if it is whole."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs, strict=False)
    try:
        value, end = decoder.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None
    return value, end - place


def _lenient(text: str) -> Any:
    """What is still legible of broken JSON: cut off, commas missing, quotes not escaped."""
    root: list[Any] = []
    open_values, name = [root], ""
    for match in _TOKEN.finditer(text):
        if match["close"]:
            del open_values[max(1, len(open_values) - 1) :]
        elif match["name"] is not None:
            name = match["name"]
        else:
            value: Any = match["string"] or match["rest"] or ""
            if match["open"]:
                value = _Pairs() if match["open"] == "{" else []
            parent = open_values[-1]
            parent.append((name, value) if isinstance(parent, _Pairs) else value)
            name = ""
            if match["open"]:
                open_values.append(value)
    return root[0] if root else None


def _pieces(value: Any) -> list[str]:
    """Each step's text: the entries of what lies within wrappers such as ``{"steps": ...}``."""
    while (inner := _wrapped(value)) is not None:
        value = inner
    return [" ".join(_strings(entry)) for _, entry in _entries(value)]


def _wrapped(value: Any) -> Any:
    """The one list or object that ``value`` wraps, unless that is itself a numbered step."""
    inner = [(name, entry) for name, entry in _entries(value) if isinstance(entry, list | dict)]
    if len(inner) != 1:
        return None
    name, entry = inner[0]
    if isinstance(value, list) and not isinstance(value, _Pairs):
        return entry if len(value) == 1 and isinstance(entry, _Pairs | dict) else None
    return None if name[-1:].isdigit() else entry


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, _Pairs):
        return value
    if isinstance(value, dict):
        return list(value.items())
    return [("", entry) for entry in value] if isinstance(value, list) else [("", value)]


def _strings(value: Any) -> Iterator[str]:
    """All texts within, in order; names of fields are no part of the solution."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            waiting += [entry for _, entry in reversed(_entries(value))]


# --- from words to boundaries -------------------------------------------------------------------

# A word in lower case, with its place in the text.
_Word = tuple[str, int, int]


def _words(text: str) -> list[_Word]:
    return [(match.group().casefold(), *match.span()) for match in _WORD.finditer(text)]


def _align(words: Sequence[_Word], pieces: Sequence[str]) -> list[tuple[int, int]]:
    """For each word of the pieces: which word of the text it is (-1 = none), and its piece."""
    told = [(word, i) for i, piece in enumerate(pieces) for word, _, _ in _words(piece)]
    places = [-1] * len(told)
    for start, start_told, size in _blocks([w for w, _, _ in words], [w for w, _ in told]):
        places[start_told : start_told + size] = range(start, start + size)
    return [(place, piece) for place, (_, piece) in zip(places, told, strict=True)]


def _blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Matching runs of two word sequences, in order in both: (start in a, start in b, length)."""
    cuts = [(0, 0), *_anchors(a, b), (len(a), len(b))]
    for (i, j), (i_end, j_end) in pairwise(cuts):
        for start, start_b, size in _small_blocks(a[i:i_end], b[j:j_end]):
            yield i + start, j + start_b, size


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Places of phrases that both hold once, as many as are in the same order (patience diff)."""
    places = _single_phrases(b)
    pairs = [(i, places[phrase]) for phrase, i in _single_phrases(a).items() if phrase in places]
    # The longest increasing subsequence: lasts[n] ends the best one of n + 1 pairs, at ends[n].
    lasts: list[int] = []
    ends: list[int] = []
    before = [-1] * len(pairs)
    for k, (_, j) in enumerate(pairs):
        n = bisect_left(ends, j)
        before[k] = lasts[n - 1] if n else -1
        lasts[n : n + 1], ends[n : n + 1] = [k], [j]
    chain, k = [], lasts[-1] if lasts else -1
    while k >= 0:
        chain.append(pairs[k])
        k = before[k]
    return chain[::-1]


def _single_phrases(words: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Phrases of a few words that occur once, and where."""
    phrases = list(zip(*(words[k:] for k in range(_PHRASE)), strict=False))
    counts = Counter(phrases)
    return {phrase: i for i, phrase in enumerate(phrases) if counts[phrase] == 1}


def _small_blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """As `_blocks`, for what stands between two anchors."""
    shorter = min(len(a), len(b))
    head = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    left = shorter - head
    tail = next((i for i in range(left) if a[-1 - i] != b[-1 - i]), left)
    yield 0, 0, head
    a_left, b_left = a[head : len(a) - tail], b[head : len(b) - tail]
    counts = Counter(a_left)
    if sum(counts[word] for word in b_left) <= _MAX_PAIRS:
        matcher = SequenceMatcher(None, a_left, b_left, autojunk=False)
        for i, j, size in matcher.get_matching_blocks():
            # A single word between strangers is chance.
            if size > 1:
                yield head + i, head + j, size
    yield len(a) - tail, len(b) - tail, tail


def _boundaries(text: str, words: Sequence[_Word], found: Sequence[tuple[int, int]]) -> list[int]:
    """Where steps begin in ``text``: at the first word that was found again of each piece.

    What the answer leaves out stays with the step before it. If a piece's first words are not the
    text's own, as many words before the first one that was found belong to it.
    """
    sentences = [start for start, _ in split_sentences(text)]
    starts = []
    before, seen, piece_now, begun = -1, -1, -1, 0
    for j, (place, piece) in enumerate(found):
        if piece != piece_now:
            piece_now, begun = piece, j
        if place < 0:
            continue
        if piece != seen and before >= 0:
            first = max(before + 1, place - (j - begun))
            starts.append(_locate(text, words[before:], first - before, place - before, sentences))
        before, seen = place, piece
    return starts


def _locate(
    text: str, words: Sequence[_Word], first: int, found: int, sentences: Sequence[int]
) -> int:
    """Where in ``text`` a step begins.

    Args:
        text: The response.
        words: Its words, from the last one that surely belongs to the step before.
        first: The word that the step seems to begin with.
        found: The first one that surely belongs to the step.
        sentences: Where sentences begin. They know what belongs to formulas and headings, so one
            that begins here or a few words off is preferred; then a line, then any white space.
    """
    wanted = words[first][1]
    low, high = bisect_left(sentences, words[0][2]), bisect_right(sentences, words[found][1])
    if low < high:
        nearest = min(sentences[low:high], key=lambda start: abs(start - wanted))
        between = sum(nearest <= start < wanted for _, start, _ in words[1:first])
        if first < found or between <= _FEW_WORDS:
            return nearest
    gap = words[first - 1][2]
    space = _LINE_GAP.search(text, gap, wanted) or _GAP.search(text, gap, wanted)
    return space.end() if space else wanted


def _cut(text: str, starts: Sequence[int]) -> list[Span]:
    """The partition of ``text`` whose parts begin at ``starts``."""
    return list(pairwise([0, *sorted({start for start in starts if start > 0}), len(text)]))
