"""The trajectory sets, from the hub or a folder, and the pool that is drawn from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

from lalp.errors import InputError, reason
from lalp.files import cache_dir, digest, file_digest, fingerprint, not_found
from lalp.paper.rsr.plan import Plan
from lalp.pools.importing import import_pool
from lalp.pools.pool import Pool
from lalp.pools.reading import load_pool
from lalp.shelf import read_records, write_records
from lalp.stats import stable_hash

# (teacher, generation): names a set.
SetName = tuple[str, str]


def load_sets(plan: Plan, folder: str | Path | None = None) -> tuple[Pool, dict[str, str]]:
    """A pool of ``num_responses`` traces from each set, and the SHA-256 of every file by its path.

    The files are read from ``folder``, or the folder in the environment variable RSR; without both
    they are fetched from the hub at the pinned revision. Problems are drawn by seed and by their
    text: within one generation, the same problems for every teacher if its sets hold them, and
    others for the next generation. Drawn records are kept in the cache folder, because reading all
    files takes minutes.

    Raises:
        InputError: If the folder, a set or the network is missing, or a set cannot be read.
    """
    given = given_folder(plan, folder)
    names = _list_folder(Path(given)) if given else _list_hub(plan)
    records, digests, code = [], {}, fingerprint("pools", "paper.rsr.sets")
    for which, name in find_sets(plan, names, str(given or plan.repository)).items():
        path = Path(given) / name if given else _fetch(plan, name)
        digests[name] = file_digest(path)
        key = digest([digests[name], which, plan.num_responses, plan.seed, code])
        records += _drawn(plan, path, key, which)
    return load_pool(records), digests


def given_folder(plan: Plan, folder: str | Path | None = None) -> str:
    """The whole path of ``folder``, or of that in the variable RSR; empty without both."""
    given = folder or os.environ.get("RSR")
    if given and not Path(given).is_dir():
        advice = f"give the folder of {plan.repository}, or leave RSR empty to fetch it"
        raise InputError(f"{given}: {not_found(given, 'folder', advice)}")
    return str(Path(given).absolute()) if given else ""


def find_sets(plan: Plan, names: Sequence[str], where: str) -> dict[SetName, str]:
    """The file of every set among the paths of a repository or folder.

    Raises:
        InputError: If a set has no file, or more than one.

    Example:
        >>> from dataclasses import replace
        >>> from lalp.paper.rsr.plan import PLAN
        >>> small = replace(PLAN, teachers={"QwQ-32B": "qwq*"}, generations=["gen1"])
        >>> find_sets(small, ["README.md", "qwq-32b/short-sys_5k_gen1.json"], "data")
        {('QwQ-32B', 'gen1'): 'qwq-32b/short-sys_5k_gen1.json'}
    """
    found = {}
    for teacher, pattern in plan.teachers.items():
        for generation in plan.generations:
            file = f"{pattern}/{plan.set_file.format(generation)}"
            fitting = [name for name in names if fnmatchcase(name, file)]
            if len(fitting) != 1:
                number = f"{len(fitting)} files" if fitting else "no file"
                folders = ", ".join(sorted({name.rpartition("/")[0] for name in names} - {""}))
                advice = f"mend the folder of {teacher} in lalp/paper/rsr/plan.yaml"
                there = f"there are the folders {folders}" if folders else "there are no folders"
                raise InputError(f"{where}: {number} {file}; {there}: {advice}, or get the set")
            found[teacher, generation] = fitting[0]
    return found


def _list_folder(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.json"))]


_OFFLINE = "go online, or set RSR to a folder with the data set"


def _list_hub(plan: Plan) -> list[str]:
    try:
        return HfApi().list_repo_files(plan.repository, repo_type="dataset", revision=plan.revision)
    except Exception as error:  # the hub, the network, or its settings
        where = f"{plan.repository} at {plan.revision[:12]}"
        raise InputError(f"{where}: cannot be listed ({reason(error)}): {_OFFLINE}") from error


def _fetch(plan: Plan, name: str) -> Path:
    """A file of the data set in the hub's own cache."""
    where = {"repo_type": "dataset", "revision": plan.revision}
    try:
        return Path(hf_hub_download(plan.repository, name, **where))
    except Exception as error:
        raise InputError(f"{name}: cannot be fetched ({reason(error)}): {_OFFLINE}") from error


def _drawn(plan: Plan, path: Path, key: str, name: SetName) -> list[dict[str, Any]]:
    """The records drawn from a set, read from the cache or from its file."""
    kept = cache_dir() / "rsr" / f"{key}.jsonl"
    records = read_records(kept, key, "drawing again")
    if not records:
        records = _draw(plan, path, name)
        write_records(kept, key, records)
    return records


def _draw(plan: Plan, path: Path, name: SetName) -> list[dict[str, Any]]:
    teacher, generation = name
    pool = import_pool([path], teacher=teacher)
    traces = {response.prompt_id: response for response in reversed(pool.responses)}
    # By problem, not by place: a set that lacks one keeps the others.
    order = sorted(traces, key=lambda key: stable_hash("rsr", plan.seed, generation, key))
    if len(order) < plan.num_responses:
        few = f"holds {len(order)} problems, {plan.num_responses} are planned"
        raise InputError(f"{path}: {few}: get the whole file, or plan fewer (num_responses)")
    return [
        {
            "prompt_id": key,
            "prompt": [asdict(message) for message in pool.prompts[key].messages],
            "response": traces[key].text,
            "response_id": f"{key}/{teacher}/{generation}",
            "teacher": teacher,
            "generation": generation,
        }
        for key in order[: plan.num_responses]
    ]
