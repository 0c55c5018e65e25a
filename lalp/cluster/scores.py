"""Score a pool on a Ray cluster: workers score whole prompts and keep the scores in one store.

Each worker scores prompt by prompt, as one process does. So the table is the same bit for bit if
the machines are the same. On GPUs it may differ by rounding, because a GPU reads the prompts of a
piece together. Scores in the store are not computed again, whichever process stored them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import fsspec
import pandas as pd
import pyarrow as pa
import torch
from tqdm import tqdm

from lalp.cluster.workers import Workers, run_workers
from lalp.errors import InputError, reason
from lalp.files import cache_dir
from lalp.pools.importing import Reject, import_pool
from lalp.pools.lines import fits_memory
from lalp.pools.pool import Pool
from lalp.pools.spool import response_facts
from lalp.scoring.gathering import pool_ids
from lalp.scoring.run import Scorer
from lalp.scoring.shards import Pile
from lalp.steps.splitters import BY_TEXT, Steps, chunk_size, split_pool

if TYPE_CHECKING:
    from lalp.steps.sentences import Span

# Characters of a piece of work. A GPU needs seconds for it, so the time to send it hardly matters.
_PIECE_CHARACTERS = 1 << 18
_PIECES = 8  # for each worker at least, so that no worker waits long for the last piece


@dataclass(frozen=True)
class _Item:
    """A prompt with its responses, and their steps if the worker does not cut them itself."""

    pool: Pool
    steps: Mapping[str, list[Span]] | None = None


def score_on_ray(
    pool: Pool,
    workers: Workers,
    student: str,
    windows: Sequence[str] = ("4",),
    *,
    on_reject: Callable[[Reject], None],
    splitter: str | Steps = "sentences",
    progress: bool = True,
    **settings: Any,
) -> tuple[pd.DataFrame, Pool]:
    """Score a pool with workers on a cluster, as `lalp.score` does in one process.

    Args:
        pool: As for `lalp.score`.
        workers: How many workers, and on which cluster.
        student: A name that means the same student on every machine.
        windows: As for `lalp.score`.
        on_reject: Called with each prompt that no worker could score. The table leaves it out.
        splitter: As for `lalp.score`.
        progress: Show how many prompts are done.
        settings: Other arguments of `lalp.score`. All machines must share the folder or URL in
            ``store``.

    Returns:
        The score table, and the pool without the prompts that could not be scored.

    Raises:
        InputError: As for `lalp.score`; or if there is no such cluster, or no prompt could be
            scored.
    """
    own = splitter if isinstance(splitter, str) else "sentences"
    cut = None
    if not (isinstance(splitter, str) and (splitter in BY_TEXT or chunk_size(splitter))):
        cut = split_pool(pool, splitter)  # these splitters need the whole pool
        own = "sentences"
    settings["store"] = _everywhere(settings.get("store") or cache_dir() / "scores")
    name, threads = _everywhere(student), torch.get_num_threads()
    make = partial(_Scoring, threads, name, tuple(windows), own, settings)
    scored, lost = _Scored(), set[str]()

    def give_up(item: _Item, why: str) -> None:
        (prompt_id,) = item.pool.prompts
        lost.add(prompt_id)
        on_reject(Reject("cluster", f"prompt {prompt_id!r}", why, {"prompt_id": prompt_id}))

    pieces = _pieces(pool, cut, workers.number)
    options = {"disable": True} if not progress else {}
    with tqdm(total=len(pool.prompts), unit="prompt", **options) as bar:
        for table, attributes in run_workers(workers, make, pieces, give_up):
            scored.add(table, attributes)
            bar.update(attributes["num_prompts"])
    if lost:
        pool = _without(pool, lost)
    if not pool.responses:
        raise InputError("no prompt could be scored: the rejects file says why")
    frame = scored.join(pool)
    named = splitter if isinstance(splitter, str) else "given steps"
    frame.attrs |= {"student": student, "splitter": named}
    return frame, pool


def _everywhere(name: str | Path) -> str:
    """Make a path absolute, because workers run in another folder; keep other names."""
    return str(Path(name).absolute()) if Path(name).exists() or isinstance(name, Path) else name


def read_pool(source: str, on_reject: Callable[[Reject], None]) -> Pool:
    """Read a pool from this machine or from a URL that fsspec reads, and leave out bad rows.

    Raises:
        InputError: If there is no such pool, or no row of it can be used.
    """
    if "://" not in source:
        with fits_memory(source):
            return import_pool([source], on_reject=on_reject)
    with TemporaryDirectory() as folder:
        try:
            system, path = fsspec.core.url_to_fs(source)
            local = f"{folder}/{path.rstrip('/').rsplit('/', 1)[-1]}"
            system.get(path, local, recursive=True)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(f"{source}: cannot be read ({reason(error)})") from error
        return import_pool([local], on_reject=on_reject)


class _Scoring:
    """A scorer with a student; each worker prepares one and scores prompts with it."""

    def __init__(
        self, threads: int, student: str, windows: Sequence[str], splitter: str, settings: dict
    ) -> None:
        torch.set_num_threads(threads)  # the rounding of sums depends on their number
        self._scorer = Scorer(student, windows, splitter=splitter, progress=False, **settings)

    def __call__(self, items: list[_Item]) -> tuple[pa.Table, dict[str, Any]]:
        prompts = {k: v for item in items for k, v in item.pool.prompts.items()}
        responses = tuple(r for item in items for r in item.pool.responses)
        steps = None
        if items[0].steps is not None:
            steps = {k: v for item in items for k, v in item.steps.items()}
        frame = self._scorer(Pool(prompts, responses), steps)
        names = ["prompt_id", "teacher", "correct"]
        table = pa.Table.from_pandas(frame.drop(columns=names), preserve_index=False)
        return table.replace_schema_metadata(None), frame.attrs | {"num_prompts": len(items)}

    def close(self) -> None:
        self._scorer.flush()


@dataclass
class _Scored:
    """The scores that workers have sent."""

    pile: Pile = field(default_factory=Pile)
    attributes: dict[str, Any] = field(default_factory=dict)

    def add(self, table: pa.Table, attributes: dict[str, Any]) -> None:
        if not self.attributes:
            self.attributes = attributes
        if attributes["key"] != self.attributes["key"]:
            ours, theirs = (each["scored_with"] for each in (self.attributes, attributes))
            unlike = {
                name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]
            }
            raise InputError(f"workers differ in {unlike}: give them one kind of machine")
        self.pile.add(table)

    def join(self, pool: Pool) -> pd.DataFrame:
        table, ids = self.pile.table(), pool_ids(pool)
        order = pd.Index(table["response_id"].to_pandas()).get_indexer(ids["response_id"])
        rows = table.drop_columns(["response_id"]).take(pa.array(order))
        frame = pd.concat([ids, rows.to_pandas()], axis=1)
        frame.attrs = {n: v for n, v in self.attributes.items() if n != "num_prompts"}
        return frame


def _pieces(pool: Pool, cut: Steps | None, number: int) -> Iterator[list[_Item]]:
    """The pool's prompts in pieces; a piece is read when a worker is free."""
    members: dict[str, list[int]] = {}
    for place, (_, prompt_id, *_) in enumerate(response_facts(pool.responses)):
        members.setdefault(prompt_id, []).append(place)
    most = max(1, len(members) // (_PIECES * number))
    piece, size = list[_Item](), 0
    for prompt_id, places in members.items():
        responses = tuple(pool.responses[place] for place in places)
        steps = {r.response_id: cut[r.response_id] for r in responses} if cut else None
        piece.append(_Item(Pool({prompt_id: pool.prompts[prompt_id]}, responses), steps))
        size += sum(len(response.text) for response in responses)
        if size >= _PIECE_CHARACTERS or len(piece) >= most:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _without(pool: Pool, lost: set[str]) -> Pool:
    prompts = {name: pool.prompts[name] for name in pool.prompts if name not in lost}
    responses = tuple(r for r in pool.responses if r.prompt_id not in lost)
    return replace(pool, prompts=prompts, responses=responses)


class ScorePrompts:
    """Score prompts in your own ``ray.data`` pipeline, by ``map_groups`` or ``map_batches``.

    A batch holds pool records of whole prompts, as ``groupby("prompt_id")`` gives them. The result
    has their ids and scores, as in `lalp.score`. A row that is not a pool record has no scores, and
    its error is in ``reason``.

    Example:
        >>> import ray  # doctest: +SKIP
        >>> records = ray.data.read_parquet("s3://bucket/pool/")  # doctest: +SKIP
        >>> scores = records.groupby("prompt_id").map_groups(  # doctest: +SKIP
        ...     ScorePrompts,
        ...     fn_constructor_kwargs={"student": "Qwen/Qwen2.5-7B-Instruct", "windows": ["4"]},
        ...     concurrency=64,
        ...     num_gpus=1,
        ...     batch_format="pandas",
        ... )
        >>> scores.write_parquet("s3://bucket/scores/")  # doctest: +SKIP
    """

    def __init__(self, student: str, windows: Sequence[str] = ("4",), **settings: Any) -> None:
        self._scorer = Scorer(student, windows, progress=False, **settings)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Score the prompts of a batch."""
        rejects: list[Reject] = []
        try:
            pool = import_pool([batch], on_reject=rejects.append)
        except InputError as error:  # no record can be used
            pool, rejects = None, rejects or [Reject("batch", "", str(error), {})]
        bad = pd.DataFrame([_bad_row(reject) for reject in rejects])
        frames = [] if pool is None else [self._scorer(pool)]
        self._scorer.flush()
        return pd.concat([*frames, bad]) if len(bad) else frames[0]


def _bad_row(reject: Reject) -> dict[str, Any]:
    record = reject.record if isinstance(reject.record, Mapping) else {}
    known = {name: record.get(name) for name in ("prompt_id", "response_id", "teacher")}
    return known | {"reason": f"{reject.place}: {reject.reason}"}
