"""Steps by a language model (paper, Sec. B.1), over any OpenAI-compatible endpoint.

The model is asked for the solution's logical sub-steps as JSON. Only the places of the boundaries
are taken from its answer: the answer's words are aligned to the words of the original text, so
neither rewording nor broken LaTeX ever enters a step. If too little of the text is found again, the
response is cut into sentences instead, and the reason is kept.

Every answer is kept (`cache_dir`) as soon as it arrives: a killed run continues where it stopped.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lalp.errors import InputError
from lalp.extras import require
from lalp.files import cache_dir, check_file, digest, read_data, write_text
from lalp.pools.pool import Pool, Prompt, Response
from lalp.steps.alignment import split_by_answer
from lalp.steps.sentences import Span, split_sentences
from lalp.steps.splitters import part_turns

# Imported when needed: it is an extra and takes a second.
if TYPE_CHECKING:
    from httpx2 import Response as HttpResponse
    from openai import OpenAI

# The only source of a key; local servers need none.
API_KEY_VARIABLE = "LALP_LLM_API_KEY"

_TEXTS = read_data("steps/instruction.yaml")
INSTRUCTION: str = _TEXTS["instruction"]

# Transport errors of a reachable server: another request may succeed.
_BROKEN_OFF = {"ReadError", "WriteError", "CloseError", "RemoteProtocolError", "DecodingError"}
# No answer is this long; a server that never stops must not fill the memory.
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LlmSteps:
    """By response id: the spans of its steps, and the reason if they are sentences after all."""

    steps: dict[str, list[Span]]
    fallbacks: dict[str, str]


@dataclass(frozen=True)
class _Answer:
    """The server's text, and whether it was cut at the length limit; or why there is none."""

    text: str = ""
    cut_off: bool = False
    lacking: str = ""


def split_with_llm(
    pool: Pool,
    url: str,
    model: str,
    *,
    instruction: str = INSTRUCTION,
    concurrency: int = 16,
    timeout: float = 600.0,
    max_retries: int = 4,
) -> LlmSteps:
    """Cut every response of a pool into the steps that a language model finds in it (Sec. B.1).

    Requests that fail temporarily (429, 5xx, time-outs) are tried again after growing pauses.
    ``url`` is the server's base URL, such as ``http://localhost:8000/v1``. A key, if needed, is
    read from the environment variable ``LALP_LLM_API_KEY``. ``instruction`` is the message to send:
    it holds ``{solution}``, and may hold ``{problem}``. ``concurrency`` is the number of requests
    at once, ``max_retries`` that of further tries of each; ``timeout`` is in seconds, for a whole
    answer and for each pause within it. Answers are kept in ``llm_steps`` of `cache_dir`.

    Raises:
        InputError: If the extra ``llm`` is not installed, the instruction lacks ``{solution}``,
            the server cannot be reached or refuses the key or model, or no request succeeds.
    """
    if "{solution}" not in instruction:
        raise InputError(
            "the instruction lacks {solution}, where each response is to stand: add it"
        )
    require("llm", "splitter llm")
    # Equal texts under the same problem share one question, and so one place.
    places, questions = {}, {}
    for response in pool.responses:
        if response.text.strip():
            question = _fill(instruction, pool.prompts[response.prompt_id], response)
            path = cache_dir() / "llm_steps" / f"{digest([model, question], 32)}.json"
            places[response.response_id], questions[path] = path, question
    answers = {path: _read_answer(path) for path in questions}
    missing = {path: question for path, question in questions.items() if not answers[path]}
    if missing:
        client = _connect(url, timeout, max_retries)
        answers |= _ask_missing(client, model, missing, concurrency)
    if answers and all(answer.lacking for answer in answers.values()):
        why, count = Counter(answer.lacking for answer in answers.values()).most_common(1)[0]
        raise InputError(
            f"{url}: no response got an answer, {count} of {len(answers)} because: {why}"
        )
    blank = _Answer(lacking="the response is blank")
    steps, fallbacks = {}, {}
    for response in pool.responses:
        name = response.response_id
        answer = answers[places[name]] if name in places else blank
        if why := answer.lacking:
            steps[name] = split_sentences(response.text)
        else:
            steps[name], why = split_by_answer(response.text, answer.text, answer.cut_off)
        steps[name] = part_turns(response, steps[name])
        if why:
            fallbacks[name] = why
    return LlmSteps(steps, fallbacks)


def _connect(url: str, timeout: float, max_retries: int) -> OpenAI:
    """A client of the server at ``url``; its answers must be complete after ``timeout`` seconds."""
    from openai import DefaultHttpxClient, OpenAI

    # A key is never taken from OPENAI_API_KEY: it would go to any server that the URL names.
    key = os.environ.get(API_KEY_VARIABLE, "").strip() or "none"
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no server's URL: give one such as http://localhost:8000/v1")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{API_KEY_VARIABLE}: holds characters that no key has: set it anew")
    limits = {"timeout": timeout, "max_retries": max_retries}
    try:
        http = DefaultHttpxClient(event_hooks={"response": [lambda reply: _limit(reply, timeout)]})
        return OpenAI(base_url=url, api_key=key, http_client=http, **limits)
    except Exception as error:  # of several kinds: a bad URL, or a bad proxy in the environment
        raise InputError(f"{url}: no client can be made for it ({error}): mend the URL") from error


def _limit(reply: HttpResponse, seconds: float) -> None:
    """Stop a reply that takes too long or is too large.

    The client's own limit covers only each pause between two bytes; a server that sends single
    bytes would never reach it.
    """
    import httpx2

    class Limited(httpx2.SyncByteStream):
        def __iter__(self) -> Any:
            size = 0
            for chunk in stream:
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("the answer takes too long", request=reply.request)
                if size > _MAX_BYTES:
                    raise httpx2.ReadError("the answer is too large", request=reply.request)
                yield chunk

        def close(self) -> None:
            stream.close()

    stream, deadline = reply.stream, time.monotonic() + seconds
    reply.stream = Limited()


def _fill(instruction: str, prompt: Prompt, response: Response) -> str:
    problem = "\n\n".join(m.content for m in prompt.messages if m.role == "user")
    values = {"problem": problem, "solution": response.text}
    # In one pass, because a problem may itself hold "{solution}".
    return re.sub(r"\{(problem|solution)\}", lambda match: values[match[1]], instruction)


def load_instruction(path: str | Path) -> str:
    """Read an instruction for `split_with_llm` from a text file that holds ``{solution}``."""
    check_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: the instruction cannot be read ({reason})") from error
    if "{solution}" not in text:
        raise InputError(f"{path}: lacks {{solution}}, where each response is to stand: add it")
    return text


def _ask_missing(
    client: OpenAI, model: str, questions: Mapping[Path, str], concurrency: int
) -> dict[Path, _Answer]:
    """Ask the questions whose answers are not kept yet, and keep the answers."""
    threads = ThreadPoolExecutor(concurrency)
    jobs = {threads.submit(_ask, client, model, q, path): path for path, q in questions.items()}
    answers = {}
    try:
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="response"):
            answers[jobs[job]] = job.result()
    finally:
        # When a request fails for good, no more are sent, but pending answers are kept.
        threads.shutdown(wait=False, cancel_futures=True)
    return answers


def _ask(client: OpenAI, model: str, question: str, path: Path) -> _Answer:
    """Ask one question and keep the answer; InputError if all other questions would fail too."""
    import openai

    try:
        completion = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0
        )
    except openai.APITimeoutError:
        return _Answer(lacking="no answer within the time limit")
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ in _BROKEN_OFF:
            return _Answer(lacking="the connection broke off")
        raise InputError(
            f"{client.base_url} cannot be reached ({error.__cause__ or error}): start the server "
            "or mend the URL, then run again; answers so far are kept"
        ) from error
    except openai.APIStatusError as error:
        # All other requests would fail too if the key, a permission or the model is missing.
        if error.status_code not in (401, 403, 404):
            return _Answer(lacking=f"the server answered with HTTP {error.status_code}")
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{client.base_url} refuses the request ({reason}): check the URL, the "
            f"model's name {model!r}, and the key in {API_KEY_VARIABLE}"
        ) from error
    except (openai.OpenAIError, ValueError, RecursionError):
        return _Answer(lacking="the server's answer is no chat completion")
    # The client accepts replies of any form, so every part of one may be missing.
    try:
        choice = completion.choices[0]
        text, cut_off = _text_of(choice.message.content), choice.finish_reason == "length"
    except (AttributeError, LookupError, TypeError):
        return _Answer(lacking="the server's answer is no chat completion")
    if not text.strip():
        if cut_off:
            return _Answer(lacking="the answer was cut off at the length limit within its thought")
        # A server that splits off thoughts treats all text as one if the model closes none.
        names = ("reasoning_content", "reasoning")
        thoughts = [_text_of(getattr(choice.message, name, None)) for name in names]
        text = next(filter(str.strip, thoughts), "")
    if not text:
        return _Answer(lacking="the answer is empty")
    record = {"model": model, "question": question, "answer": text, "cut_off": cut_off}
    # In ASCII, so that even half a surrogate pair can be written.
    write_text(path, json.dumps(record, indent=1) + "\n")
    return _Answer(text, cut_off)


def _text_of(value: Any) -> str:
    """A message's text, whole or in parts (``[{"type": "text", "text": ...}]``), or nothing."""
    parts = value if isinstance(value, list) else [{"text": value}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _read_answer(path: Path) -> _Answer | None:
    """A kept answer; None if there is none, or a broken one, which is asked for again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _Answer(str(record["answer"]), bool(record["cut_off"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
