"""Scores that take hours: numbers are committed, notebooks read them, and a sample is checked live.

A profile whose ``results`` name a folder of ``figures/`` reads the results of `make results` there,
if they belong to the same texts, student and steps; all else is scored. These tables hold nobody's
texts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lalp.errors import InputError
from lalp.files import digest
from lalp.paper import root_dir
from lalp.paper.committed import made_of, write_table
from lalp.paper.profiles import Profile
from lalp.paper.rechecks import SAME_NATS
from lalp.pools.pool import Pool
from lalp.scoring.columns import score_columns
from lalp.scoring.run import score
from lalp.scoring.table import load_scores
from lalp.steps.splitters import Steps

log = logging.getLogger("lalp")

_BATCH = 5  # prompts that are scored before the table is written again


@dataclass(frozen=True)
class Kept:
    """Which part is being written, if any, and whether it is added to the committed one."""

    part: str = ""
    adds: bool = False
    student: str = ""  # place of the profile's student on this machine, if its name does not say it

    def holds(self, part: str) -> bool:
        """Whether a table is the part itself, or its name begins with the part's."""
        return bool(self.part) and (part == self.part or part.startswith(f"{self.part}_"))


_NOTHING = Kept()
_keeping: ContextVar[Kept] = ContextVar("keeping", default=_NOTHING)


def scores_of(
    profile: Profile, part: str, pool: Pool, compute: Callable[[Pool], pd.DataFrame]
) -> pd.DataFrame:
    """Scores of a pool: the committed ones in ``figures/RESULTS/PART.parquet``, or computed ones.

    ``compute`` scores the prompts that the table lacks, or all of them if there is no table. The
    scores of a prompt must not depend on other prompts.
    """
    path = root_dir() / "figures" / profile.results / f"{part}.parquet" if profile.results else None
    if path is None:
        return compute(pool)
    kept, made_for = _keeping.get(), _digests(profile, pool)
    if not kept.holds(part):
        return _complete(path, pool, made_for, compute)
    have = _committed(path, made_for) if kept.adds else _Rows()
    lacking = [name for name in made_for if name not in have.prompts]
    for start in range(0, len(lacking), _BATCH):
        batch = lacking[start : start + _BATCH]
        have = have.joined(compute(_only(pool, batch)), batch, path.name)
        of_prompts = {name: made_for[name] for name in have.prompts}
        write_table(path, have.ordered(pool), json.dumps(of_prompts))
    return load_scores(path)


def _complete(
    path: Path, pool: Pool, made_for: Mapping[str, str], compute: Callable[[Pool], pd.DataFrame]
) -> pd.DataFrame:
    """A committed table's rows for a pool, and computed rows for the prompts that it lacks."""
    if not path.is_file():
        return compute(pool)
    have = _committed(path, made_for)
    lacking = [name for name in made_for if name not in have.prompts]
    if lacking:
        what = "of other texts, another student or steps, or not scored yet: scored now"
        log.warning("%s: %d of %d prompts are %s", path.name, len(lacking), len(made_for), what)
        have = have.joined(compute(_only(pool, lacking)), lacking, path.name)
    return have.ordered(pool)


@contextmanager
def keeping(part: str, *, adds: bool = False, student: str = "") -> Iterator[None]:
    """Meanwhile `scores_of` computes a part (with what its name begins), and writes it.

    With ``adds`` it computes the prompts that the committed table lacks, and adds them to it.
    ``student`` is the place of the profile's student, for `scoring_student`.
    """
    token = _keeping.set(Kept(part, adds, student))
    try:
        yield
    finally:
        _keeping.reset(token)


def scoring_student(profile: Profile) -> str:
    """The student that scores: the profile's, or the folder or file that is given for it."""
    return _keeping.get().student or profile.student


@dataclass(frozen=True)
class _Rows:
    """Rows of a table, and their prompts."""

    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    prompts: tuple[str, ...] = ()

    def joined(self, frame: pd.DataFrame, prompts: Sequence[str], name: str) -> _Rows:
        """This part with more rows. InputError if their columns differ."""
        own = frame.drop(columns=["response", "turns"], errors="ignore")
        other = set(own) ^ set(self.frame)
        if self.prompts and other:
            raise InputError(
                f"{name} and its new rows differ in {', '.join(sorted(other))}: "
                "compute the whole part again, without adding to it"
            )
        frames = [self.frame, own] if self.prompts else [own]
        return _Rows(pd.concat(frames, ignore_index=True), (*self.prompts, *prompts))

    def ordered(self, pool: Pool) -> pd.DataFrame:
        """The rows in the order of a pool's responses."""
        place = {response.response_id: i for i, response in enumerate(pool.responses)}
        order = self.frame["response_id"].map(place).argsort(kind="stable")
        return self.frame.iloc[order].reset_index(drop=True)


def _committed(path: Path, made_for: Mapping[str, str]) -> _Rows:
    """A table's rows for prompts whose texts, student and steps are still the same."""
    if not path.is_file():
        return _Rows()
    of_prompts = json.loads(made_of(path) or "{}")
    same = tuple(name for name, made in made_for.items() if of_prompts.get(name) == made)
    frame = load_scores(path)
    return _Rows(frame[frame["prompt_id"].isin(same)].reset_index(drop=True), same)


def _only(pool: Pool, names: Sequence[str]) -> Pool:
    """Some of a pool's prompts, with their responses."""
    kept = tuple(r for r in pool.responses if r.prompt_id in set(names))
    return replace(pool, prompts={name: pool.prompts[name] for name in names}, responses=kept)


def recheck(
    profile: Profile,
    pool: Pool,
    frame: pd.DataFrame,
    windows: Sequence[str],
    *,
    splitter: str | Steps | None = None,
    num_responses: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a seeded sample of responses now, and compare it with a table.

    Returns a row per response: ``response_id``, ``num_tokens``, and ``largest``, the largest
    difference of any score or token in nats. InputError if one exceeds `SAME_NATS`.
    """
    drawn = frame.sample(num_responses, random_state=seed).set_index("response_id")
    kept = tuple(r for r in pool.responses if r.response_id in drawn.index)
    few = replace(
        pool, responses=kept, prompts={r.prompt_id: pool.prompts[r.prompt_id] for r in kept}
    )
    with_tokens = "galp:tokens" in frame
    how = {"splitter": splitter or profile.splitter, "with_tokens": with_tokens}
    now = score(few, profile.student, windows, **how).set_index("response_id")
    columns = score_columns(now)
    columns += [f"{name}:tokens" for name in columns] if with_tokens else []
    rows = [
        (name, now["num_tokens"][name], max(_gap(now[c][name], drawn[c][name]) for c in columns))
        for name in drawn.index
    ]
    checked = pd.DataFrame(rows, columns=["response_id", "num_tokens", "largest"])
    if (far := checked["largest"].max()) > SAME_NATS:
        raise InputError(f"committed scores are off by {far:.2g} nats: run make results again")
    return checked


def _gap(now: np.ndarray | float, before: np.ndarray | float) -> float:
    """The largest difference between two scores or lists of them; missing ones must agree."""
    one, other = np.atleast_1d(now).astype(float), np.atleast_1d(before).astype(float)
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nan_to_num(np.abs(one - other)).max(initial=0.0))


def _digests(profile: Profile, pool: Pool) -> dict[str, str]:
    """What decides each prompt's rows, except the code and the windows (which are columns).

    Prompts without a response have no rows and are left out.
    """
    texts: dict[str, list[tuple[str, str]]] = {}
    for response in pool.responses:
        texts.setdefault(response.prompt_id, []).append((response.response_id, response.text))
    asked = {name: [message.content for message in pool.prompts[name].messages] for name in texts}
    return {
        name: digest([profile.student, profile.splitter, asked[name], own], 16)
        for name, own in texts.items()
    }
