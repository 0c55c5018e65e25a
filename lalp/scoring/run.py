"""Score a pool into a crash-safe, content-addressed store of Parquet shards.

A prompt's scores are identified by its text, its responses' texts and their steps. The name of the
store's folder stands for everything else that decides the numbers: student, tokenizer, template,
dtype, device, attention kernel, libraries and code. So a killed run continues where it stopped, a
new window is scored without the others, and scores with different settings are never mixed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lalp.files import cache_dir, digest
from lalp.pools.conversation import turns_text
from lalp.pools.pool import Pool
from lalp.pools.spool import is_spooled
from lalp.scoring.candidates import ResponseScores, score_candidates
from lalp.scoring.columns import GALP, lalp_column
from lalp.scoring.engine.sequences import find_packing
from lalp.scoring.gathering import Gathered
from lalp.scoring.groups import PromptGroup, Task, group_responses, make_tasks
from lalp.scoring.shards import CODE, Form, Pile, ScoreKey, score_table
from lalp.scoring.store import Store
from lalp.scoring.windows import Window, parse_windows
from lalp.steps.splitters import Steps, check_splitter
from lalp.students.gguf import PACKAGED_STUDENT
from lalp.students.student import FoundStudent, Student, find_student, parse_dtype

# The libraries that compute the numbers, besides this project.
_LIBRARIES = ("torch", "transformers", "tokenizers")
# Response tokens of the prompts that a GPU reads together.
_TOKENS_TOGETHER = 1 << 16


def score(
    pool: Pool,
    student: str | Student | FoundStudent = PACKAGED_STUDENT,
    windows: Sequence[str | int | Window] = ("4",),
    *,
    splitter: str | Steps = "sentences",
    thinking: str = "join",
    with_tokens: bool = False,
    store: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every response of a pool by GALP (Eq. 1) and by LALP at every window (Eq. 3).

    Args:
        pool: From `load_pool`.
        student: ``smollm2-135m``, a folder, a GGUF file, a hub id, or a loaded student.
        windows: For example ``["0", "4", "25%", "256t", "all"]``.
        splitter: How responses are cut into steps: ``sentences``, ``paragraphs``, ``semantic``,
            ``turns``, ``32t`` (chunks of that many tokens), a steps file, or a mapping of response
            ids to character spans.
        thinking: ``join``: a thought and an answer are joined as the student's chat template joins
            them; ``only``: the thought alone, with its tags; ``drop``: the answer alone.
        with_tokens: Also keep per-token log-probabilities, character spans and steps.
        store: Folder of the shards, or a URL that fsspec reads; by default ``scores`` in
            `cache_dir`. Windows that were scored before are read from there. The last bits of a
            score depend on which windows were scored together with it.
        device: As in `load_student`.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default the first on a CPU and the
            second on a GPU.
        trust_remote_code: As in `load_student`.
        progress: Show tokens per second and an estimate of the time left.

    Returns:
        One row per response in the pool's order: ids, ``num_tokens``, ``num_steps``,
        ``mean_rank``, ``mean_rank_100``, ``mean_entropy``, ``galp``, ``lalp@W`` for each window
        (nats, higher is more natural) and ``reason``, which says why a score is NaN. If the scored
        texts are not the pool's own, they are in ``response``, and the turns of conversations are
        in ``turns`` as JSON. (For a pool that is larger than memory, these two columns are left
        out: use `shape_thinking` first.) In a conversation only the assistant's turns are scored
        and counted.

    Raises:
        InputError: If the student, a window or the splitter is not understood, or given steps do
            not fit the pool.

    Example:
        >>> scores = score(load_pool("pool.jsonl"), windows=["4"])  # doctest: +SKIP
    """
    scorer = Scorer(
        student,
        windows,
        splitter=splitter,
        thinking=thinking,
        with_tokens=with_tokens,
        store=store,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    with scorer:
        return scorer(pool)


class Scorer:
    """A student with settings and a store; it scores one pool after another.

    Arguments and errors are those of `score`. The weights are read only when a score is
    lacking. New scores are written to disk every minute, and at the end of the ``with`` block.

    Example:
        >>> with Scorer("smollm2-135m", ["4"]) as scorer:  # doctest: +SKIP
        ...     tables = [scorer(load_pool(path)) for path in paths]
    """

    def __init__(
        self,
        student: str | Student | FoundStudent = PACKAGED_STUDENT,
        windows: Sequence[str | int | Window] = ("4",),
        *,
        splitter: str | Steps = "sentences",
        thinking: str = "join",
        with_tokens: bool = False,
        store: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
        progress: bool = True,
    ) -> None:
        self._windows = parse_windows(windows)
        check_splitter(splitter)
        self._splitter, self._thinking, self._progress = splitter, thinking, progress
        options = {"device": device, "dtype": parse_dtype(dtype) if dtype else None}
        self.found = find_student(student, trust_remote_code=trust_remote_code, **options)
        self._form = Form((GALP, *map(lalp_column, self._windows)), with_tokens)
        self.key = _key_of(self.found)
        self._store = Store(store or cache_dir() / "scores", self.key)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # A run that fails writes the scores it has, but does not start the final merge of shards.
        self._store.flush() if kind else self._store.close()

    @cached_property
    def _student(self) -> Student:
        return self.found.load()

    def flush(self) -> None:
        """Write the scores that are not on disk yet."""
        self._store.flush()

    def __call__(self, pool: Pool, steps: Steps | None = None) -> pd.DataFrame:
        """Score a pool, as `score` does; ``steps`` replace those of the splitter."""
        cut = self._splitter if steps is None else steps
        groups = group_responses(pool, self.found.tokenizer, cut, self._thinking)
        gathered, firsts, sizes = Gathered(self._form), array("q"), array("q")
        for number, group in enumerate(groups):
            # Groups are compared by digest, so prompts with the same texts are scored once.
            if gathered.ask(group):
                firsts.append(number)
                sizes.append(_num_characters(group))
        gathered.begin()
        self._store.fill(gathered)
        # A GPU reads many prompts together. These must be the same in any order of the pool.
        on_gpu = self.found.device.type == "cuda"
        numbers = gathered.by_digest() if on_gpu else range(len(firsts))
        if missing := [n for n in numbers if gathered.lacking(n)]:
            work = ((groups[firsts[n]], gathered.lacking(n)) for n in missing)
            self._score(work, sum(sizes[n] for n in missing), gathered)
        frame = gathered.join(pool)
        if not is_spooled(pool.responses):
            frame = _with_texts(frame, pool, groups)
        name = self._splitter if isinstance(self._splitter, str) else "given steps"
        frame.attrs = {"student": self.found.name, "splitter": name, "key": self.key.digest}
        facts = {"windows": [str(window) for window in self._windows], "thinking": self._thinking}
        facts |= {"with_tokens": self._form.with_tokens}
        frame.attrs["scored_with"] = asdict(self.key) | facts
        return frame

    def _score(
        self,
        work: Iterable[tuple[PromptGroup, tuple[str, ...]]],
        left: int,
        gathered: Gathered,
    ) -> None:
        """Score groups, ``left`` characters in total, each for the parts that it lacks."""
        self._store.begin()  # may fail, so it comes before the weights are read
        student, read = self._student, 0
        # If progress is shown, tqdm still obeys TQDM_DISABLE.
        options = {} if self._progress else {"disable": True}
        fresh: dict[Form, Pile] = {}
        with tqdm(unit="tok", unit_scale=True, **options) as bar:
            for form, together in self._read_together(work):
                tasks = [task for _, members in together for task in members]
                scores = iter(self._score_tasks(student, tasks, form, bar.update))
                for group, members in together:
                    table = score_table(group, members, [next(scores) for _ in members], form)
                    self._store.add(table, form)
                    fresh.setdefault(form, Pile()).add(table)
                # Tokenizing all prompts beforehand would take as long again and keep them all in
                # memory. So the remaining tokens are estimated from the tokens per character.
                characters = sum(_num_characters(group) for group, _ in together)
                read, left = read + characters, left - characters
                bar.total = bar.n + round(bar.n * left / read)
        for form, pile in fresh.items():
            gathered.add(pile.table(), form)

    def _read_together(
        self, work: Iterable[tuple[PromptGroup, tuple[str, ...]]]
    ) -> Iterator[tuple[Form, list[tuple[PromptGroup, list[Task]]]]]:
        """Yield prompts that lack the same parts, with their tasks: many on a GPU, else one.

        Small prompts would leave a GPU idle. On a CPU each prompt is read alone, so the last bits
        of its scores depend on no other prompt.
        """
        most = _TOKENS_TOGETHER if find_packing(self._student) else 0
        form, together, tokens = self._form, [], 0
        for group, parts in work:
            if together and parts != form.parts:
                yield form, together
                together, tokens = [], 0
            form = Form(parts, self._form.with_tokens)
            tasks = make_tasks(group, self.found.tokenizer, self.found.max_positions)
            together.append((group, tasks))
            tokens += sum(task.num_tokens for task in tasks)
            if tokens >= most:
                yield form, together
                together, tokens = [], 0
        if together:
            yield form, together

    def _score_tasks(
        self, student: Student, tasks: list[Task], form: Form, on_tokens: Callable[[int], object]
    ) -> list[ResponseScores]:
        windows = [window for window in self._windows if lalp_column(window) in form.parts]
        return score_candidates(
            student, tasks, windows, galp=GALP in form.parts, on_tokens=on_tokens
        )


def _key_of(found: FoundStudent) -> ScoreKey:
    return ScoreKey(
        student=found.revision,
        tokenizer=digest(found.tokenizer.backend_tokenizer.to_str()),
        chat_template=digest(found.tokenizer.chat_template or ""),
        dtype=str(found.dtype),
        device=found.device_name,
        attention=found.attention,
        versions=", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        code=CODE,
    )


def _with_texts(frame: pd.DataFrame, pool: Pool, groups: Sequence[PromptGroup]) -> pd.DataFrame:
    """The frame with the texts that were scored, if they are not the pool's own."""
    scored = {r.response_id: r for group in groups for r in group.responses}
    texts = [scored[response_id].text for response_id in frame["response_id"]]
    if texts == [response.text for response in pool.responses]:
        return frame
    turns = [turns_text(scored[response_id]) for response_id in frame["response_id"]]
    return frame.assign(response=texts, **({"turns": turns} if any(turns) else {}))


def _num_characters(group: PromptGroup) -> int:
    return len(group.prompt_text) + sum(len(response.text) for response in group.responses)
