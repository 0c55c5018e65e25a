"""The sources of a plan's prompts.

Prompts are read from the data sets that the paper names (B.2, C.9, C.11), from the hub or from a
folder with the same records as JSON lines. No code of a data set is ever run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lalp.errors import InputError
from lalp.evaluation.benchmarks import load_benchmark
from lalp.evaluation.livecodebench import from_hub
from lalp.files import read_data
from lalp.grading.answers import extract_answer
from lalp.pools.lines import numbered_records
from lalp.pools.pool import Message, Pool, Prompt
from lalp.sampling.settings import SYSTEM_PROMPT

log = logging.getLogger("lalp")


@dataclass(frozen=True)
class DataSet:
    """One data set of prompts."""

    file: str  # name of its local stand-in, without .jsonl
    hub_id: str
    prompt: str  # field with the problem
    configs: Sequence[str] = ()  # read in turn; empty for its only one
    splits: Sequence[str] = ("train",)
    answer: str = ""  # field with the reference answer; with a worked solution if boxed
    boxed: bool = False  # the answer is the content of the solution's last box
    key: str = ""  # field that names the problem, if several records share one
    too_easy: Sequence[str] = ()  # levels that are left out


_SETS = {name: DataSet(**facts) for name, facts in read_data("paper/scale/sources.yaml").items()}
# Prompts as the paper counts them. It names both sources of the 5,000 programs but not their
# shares; here each gives half.
COUNTS = {"limo": 817, "math": 8890, "code": 5000}


def load_source(name: str, limit: int, folder: str | Path | None = None) -> list[Prompt]:
    """Read the prompts of one of the paper's training sets.

    ``limo``: all of it. ``math``: MATH without levels 1 and 2 and without the problems of MATH-500,
    which leaves the paper's 8,890 of 12,500. ``code``: LeetCode and OpenCodeReasoning, half each,
    without answers. The records come from the hub, or from JSON lines in ``folder``.
    """
    if name not in COUNTS:
        raise InputError(f"there are no prompts {name!r}: choose {', '.join(COUNTS)}")
    found: list[tuple[Prompt, Mapping[str, Any]]] = []
    sets = ("leetcode", "opencode") if name == "code" else (name,)
    for place, each in enumerate(sets, 1):
        found += islice(_problems(each, folder), place * limit // len(sets) - len(found))
    if folder is None and len(found) < min(limit, COUNTS[name]):
        log.warning("%s: %d prompts where the paper has %d", name, len(found), COUNTS[name])
    return [prompt for prompt, _ in found]


def _problems(name: str, folder: str | Path | None) -> Iterator[tuple[Prompt, Mapping[str, Any]]]:
    """Problems in file order, each once, with their records; only the wanted ones of MATH."""
    source, held_out = _SETS[name], set()
    if name == "math":
        tested = load_benchmark("math500", folder, allow_count=True)
        held_out = {_plain(prompt.messages[-1].content) for prompt in tested}
    seen: set[str] = set()
    for number, record in enumerate(_records(source, folder), 1):
        where = f"{source.hub_id if folder is None else source.file}, record {number}"
        text = _field(record, source.prompt, where)
        key = str(record.get(source.key) or "") or _plain(text)
        if key in seen:
            continue
        # Before anything is left out, so a problem's number does not depend on that.
        seen.add(key)
        answer = _field(record, source.answer, where) if source.answer else None
        if source.boxed and (answer := extract_answer(answer)) is None:
            log.warning("%s: left out, no answer is read from its %s", where, source.answer)
            continue
        if record.get("level") in source.too_easy or _plain(text) in held_out:
            continue
        # Programs have no answer that fits into a box.
        system = (Message("system", SYSTEM_PROMPT),) if source.answer else ()
        messages = (*system, Message("user", text))
        yield Prompt(f"{source.file}/{len(seen):05d}", messages, answer), record


def _plain(text: str) -> str:
    return " ".join(text.split())


def _field(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if not text:
        raise InputError(f"{where}: field {name!r} is missing or empty: is this the data set?")
    return text


def _records(source: DataSet, folder: str | Path | None) -> Iterator[Mapping[str, Any]]:
    if folder is not None:
        path = Path(folder) / f"{source.file}.jsonl"
        for number, record in numbered_records(path, "a data set"):
            if not isinstance(record, dict):
                raise InputError(f"{path}, line {number}: must be an object with fields")
            yield record
        return
    from datasets import load_dataset

    advice = f"Get its records as {source.file}.jsonl and give their folder (--data)"
    with from_hub(f"{source.hub_id}: cannot be read from the hub", advice):
        for config in source.configs or (None,):
            for split in source.splits:
                # Streaming: OpenCodeReasoning has 28 GB, and only the first problems are needed.
                yield from load_dataset(source.hub_id, config, split=split, streaming=True)


def published_pool(teacher: str, limit: int, folder: str | Path | None = None) -> Pool:
    """LIMO's own solutions, graded, as responses of a teacher: DeepSeek-R1 (Sec. C.14)."""
    from lalp.sampling.pool import grade_completions, sampled_pool
    from lalp.sampling.samples import Completion

    pairs = list(islice(_problems("limo", folder), limit))
    prompts = [prompt for prompt, _ in pairs]
    completions = [
        Completion(prompt.prompt_id, 0, _field(record, "solution", prompt.prompt_id), 0, False)
        for prompt, record in pairs
    ]
    return sampled_pool(prompts, grade_completions(prompts, completions), teacher)
