"""Put pools together, and find the prompts that no teacher solved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lalp.errors import InputError
from lalp.pools.pool import Pool, Prompt, Response, located
from lalp.pools.reading import load_pool
from lalp.pools.records import Draft
from lalp.pools.writing import chat, write_json_lines


def write_prompts(prompts: Sequence[Prompt], path: str | Path) -> None:
    """Write prompts as JSON lines that `lalp sample` reads; an empty file if there are none."""
    records = [
        {"prompt_id": prompt.prompt_id, "prompt": chat(prompt.messages)}
        | ({} if prompt.answer is None else {"answer": prompt.answer})
        | ({"tools": list(prompt.tools)} if prompt.tools else {})
        for prompt in prompts
    ]
    write_json_lines(records, path)


def unsolved_prompts(prompts: Sequence[Prompt], pools: Sequence[Pool]) -> list[Prompt]:
    """The prompts without a response that is known to be correct, in order.

    Example:
        >>> prompts = [Prompt("p", ()), Prompt("q", ())]
        >>> pool = Pool({}, (Response("r", "p", "Ada", "It is 4.", correct=True),))
        >>> [prompt.prompt_id for prompt in unsolved_prompts(prompts, [pool])]
        ['q']
    """
    solved = {r.prompt_id for pool in pools for r in pool.responses if r.correct}
    return [prompt for prompt in prompts if prompt.prompt_id not in solved]


def merge_pools(
    paths: Sequence[str | Path],
    *,
    only_correct: bool = False,
    per_teacher: int | None = None,
    min_teachers: int = 1,
) -> Pool:
    """One pool of several files: prompts in order of first appearance, responses in file order.

    ``left_out`` counts dropped records, by reason. InputError if two files disagree on a prompt or
    its answer, two kept responses share an id, or nothing is left.

    Args:
        paths: Pools; an empty JSONL file holds no response and is skipped.
        only_correct: Keep only responses that are known to be correct.
        per_teacher: Keep this many first responses of each teacher to a prompt; all if None.
        min_teachers: Keep prompts with kept responses of at least this many teachers.
    """
    draft, left_out = Draft(), Counter[str]()
    kept: dict[str, list[tuple[str, Response]]] = {}
    counts = Counter[tuple[str, str]]()
    for path in dict.fromkeys(str(path) for path in paths if not _is_empty(Path(path))):
        pool = load_pool(path)
        left_out.update(pool.left_out)
        for prompt in pool.prompts.values():
            with located(path):
                draft.add_prompt(prompt, path)
            kept.setdefault(prompt.prompt_id, [])
        for response in pool.responses:
            key = response.prompt_id, response.teacher
            if only_correct and not response.correct:
                wrong = response.correct is False
                left_out["response is wrong" if wrong else "response is not verified"] += 1
            elif per_teacher is not None and counts[key] >= per_teacher:
                left_out[f"more than {per_teacher} responses of one teacher to a prompt"] += 1
            else:
                counts[key] += 1
                kept[response.prompt_id].append((path, response))
    for prompt_id, rows in kept.items():
        if len({response.teacher for _, response in rows}) < min_teachers:
            few = f"prompt has responses of fewer than {min_teachers} teachers"
            left_out[few if rows else "prompt without a kept response"] += 1
            del draft.prompts[prompt_id]
            continue
        # Ids are compared only now, because a wrong first try may share its id with a later one.
        for path, response in rows:
            with located(path):
                draft.add_response(response, path)
    if not draft.responses:
        reasons = ", ".join(f"{count} x {why}" for why, count in left_out.items())
        named = ", ".join(map(str, paths))
        raise InputError(f"no response is left of {named}: {reasons}: ask for less")
    return Pool(draft.prompts, tuple(draft.responses), dict(left_out))


def _is_empty(path: Path) -> bool:
    """Whether a file is an empty one from `lalp unsolved` or from sampling."""
    return path.suffix != ".parquet" and path.is_file() and not path.stat().st_size
