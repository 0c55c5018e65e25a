"""Put pools together, and find the prompts that no teacher solved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lalp.errors import InputError
from lalp.files import atomic_path
from lalp.pools.pool import Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.writing import chat, write_json_lines


def write_prompts(prompts: Sequence[Prompt], path: str | Path) -> None:
    """Write prompts as JSON lines that `lalp sample` reads; an empty file where there is none."""
    records = [
        {"prompt_id": prompt.prompt_id, "prompt": chat(prompt.messages)}
        | ({} if prompt.answer is None else {"answer": prompt.answer})
        for prompt in prompts
    ]
    with atomic_path(path) as temporary:
        write_json_lines(records, temporary)


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

    Args:
        paths: Pools; an empty file holds no response and is passed over.
        only_correct: Keep responses that are known to be correct.
        per_teacher: Keep the first so many responses of each teacher to a prompt; all if None.
        min_teachers: Keep prompts that so many teachers have a kept response to.

    Returns:
        The pool; ``left_out`` counts what was dropped, by reason.

    Raises:
        InputError: If two files disagree on a prompt or its answer, two kept responses share an
            id, or nothing is left.
    """
    empty = [path for path in paths if Path(path).is_file() and Path(path).stat().st_size == 0]
    pools = {str(path): load_pool(path) for path in paths if path not in empty}
    prompts = _merge_prompts(pools)
    left_out = Counter[str]()
    for pool in pools.values():
        left_out.update(pool.left_out)
    rows = []
    for mine in _kept_by_prompt(pools, prompts, only_correct, per_teacher, left_out).values():
        if len({response.teacher for _, response in mine}) >= min_teachers:
            rows += mine
        else:
            few = f"prompt has responses of fewer than {min_teachers} teachers"
            left_out[few if mine else "prompt without a kept response"] += 1
    if not rows:
        reasons = ", ".join(f"{count} x {why}" for why, count in left_out.items())
        raise InputError(f"no response is left of {', '.join(map(str, paths))}: {reasons}")
    _check_ids(rows)
    responses = tuple(response for _, response in rows)
    used = {response.prompt_id for response in responses}
    return Pool({p: q for p, q in prompts.items() if p in used}, responses, dict(left_out))


def _merge_prompts(pools: Mapping[str, Pool]) -> dict[str, Prompt]:
    prompts: dict[str, tuple[Prompt, str]] = {}
    for path, pool in pools.items():
        for prompt_id, prompt in pool.prompts.items():
            first, where = prompts.setdefault(prompt_id, (prompt, path))
            if prompt.messages != first.messages:
                raise InputError(
                    f"prompt {prompt_id!r} differs between {where} and {path}: give different "
                    "prompts different ids"
                )
            if first.answer is None:
                prompts[prompt_id] = (prompt, path)
            elif prompt.answer is not None and prompt.answer.strip() != first.answer.strip():
                raise InputError(
                    f"prompt {prompt_id!r} has the answer {first.answer!r} in {where}, but "
                    f"{prompt.answer!r} in {path}: a prompt has one reference answer"
                )
    return {prompt_id: prompt for prompt_id, (prompt, _) in prompts.items()}


def _kept_by_prompt(
    pools: Mapping[str, Pool],
    prompts: Mapping[str, Prompt],
    only_correct: bool,
    per_teacher: int | None,
    left_out: Counter[str],
) -> dict[str, list[tuple[str, Response]]]:
    """Each prompt's kept responses, with the file that each is from; counts the others."""
    kept: dict[str, list[tuple[str, Response]]] = {prompt_id: [] for prompt_id in prompts}
    counts = Counter[tuple[str, str]]()
    for path, pool in pools.items():
        for response in pool.responses:
            if only_correct and not response.correct:
                wrong = response.correct is False
                left_out["response is wrong" if wrong else "response is not verified"] += 1
                continue
            counts[response.prompt_id, response.teacher] += 1
            number = counts[response.prompt_id, response.teacher]
            if per_teacher is not None and number > per_teacher:
                left_out[f"more than {per_teacher} responses of one teacher to a prompt"] += 1
            else:
                kept[response.prompt_id].append((path, response))
    return kept


def _check_ids(rows: Sequence[tuple[str, Response]]) -> None:
    first: dict[str, str] = {}
    for path, response in rows:
        if response.response_id in first:
            raise InputError(
                f"response_id {response.response_id!r} is in {first[response.response_id]} and in "
                f"{path}: give every response its own"
            )
        first[response.response_id] = path
