"""Scores by workers on a cluster are those of one process, bit for bit, also when one is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from benchmarks.cluster_kills import worker_pids
from lalp.cluster import scores as cluster_scores
from lalp.cluster.scores import ScorePrompts, read_pool, score_on_ray
from lalp.cluster.workers import Workers, run_workers
from lalp.errors import InputError
from lalp.pools.pool import Pool
from lalp.scoring.run import score
from lalp.scoring.table import load_scores, write_scores
from lalp.steps.splitters import split_pool
from tests.scoring.arithmetic import RESPONSES, make_pool, shards

pytestmark = pytest.mark.usefixtures("cluster", "on_the_cpu")
WINDOWS = ("1", "25%")


@pytest.fixture
def on_the_cpu(monkeypatch):
    monkeypatch.setattr("lalp.students.student.default_device", lambda: "cpu")


@pytest.fixture(scope="module")
def pool() -> Pool:
    more = [
        (f"{i} + {i}?", t, f"Add {i}. So it is {2 * i}. {t} knows.")
        for t in "AB"
        for i in range(20)
    ]
    return make_pool([*RESPONSES, *more])


@pytest.fixture(scope="module")
def alone(pool, llama_folder, tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("alone")
    return score(pool, str(llama_folder), WINDOWS, store=folder, device="cpu", progress=False)


def by_workers(pool, student, folder, number=1, **changes) -> tuple[pd.DataFrame, Pool, list]:
    rejects: list = []
    options = {"store": folder, "device": "cpu", "progress": False, "on_reject": rejects.append}
    workers = Workers("auto", number, 0)
    return *score_on_ray(pool, workers, str(student), WINDOWS, **options | changes), rejects


def test_a_worker_killed_in_the_middle_changes_no_bit(
    pool, alone, llama_folder, tmp_path, monkeypatch
):
    killed = []

    def killing(*arguments):
        for result in run_workers(*arguments):
            if not killed:
                killed.extend(worker_pids()[:1])
                os.kill(killed[0], signal.SIGKILL)
            yield result

    monkeypatch.setattr(cluster_scores, "run_workers", killing)
    frame, whole, rejects = by_workers(pool, llama_folder, tmp_path, number=2)
    assert (whole, rejects, len(killed)) == (pool, [], 1)
    assert_frame_equal(frame, alone, check_exact=True)
    assert frame.attrs == alone.attrs


def test_given_steps_and_tokens_are_kept_and_a_bad_prompt_ends_nothing(
    pool, llama_folder, tmp_path, monkeypatch
):
    steps = dict(split_pool(pool, "paragraphs"))
    options = {"store": tmp_path / "a", "device": "cpu", "progress": False, "with_tokens": True}
    whole = score(pool, str(llama_folder), WINDOWS, splitter=steps, **options)
    expected = whole[whole["prompt_id"] != "sum"].reset_index(drop=True)
    # As if a worker had been given steps that are none.
    bad = steps | {pool.responses[0].response_id: [(0, 3)]}
    monkeypatch.setattr(cluster_scores, "split_pool", lambda pool, splitter: bad)
    options = {"splitter": steps, "with_tokens": True}
    frame, left, rejects = by_workers(pool, llama_folder, tmp_path / "b", **options)
    assert [(r.place, r.record) for r in rejects] == [("prompt 'sum'", {"prompt_id": "sum"})]
    assert "the steps end at 3" in rejects[0].reason
    assert {r.prompt_id for r in left.responses} == set(left.prompts) == {*pool.prompts} - {"sum"}
    assert_frame_equal(frame, expected, check_exact=True)
    expected.attrs = whole.attrs
    for path, table in (("a", frame), ("b", expected)):
        write_scores(table, left, tmp_path / f"{path}.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
    # One process finds all that the worker has scored.
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "b")}
    options |= {"store": tmp_path / "b", "device": "cpu", "progress": False}
    options["splitter"] = {r.response_id: steps[r.response_id] for r in left.responses}
    assert_frame_equal(score(left, str(llama_folder), WINDOWS, **options), expected)
    assert {path: path.stat().st_mtime_ns for path in shards(tmp_path / "b")} == before


def test_the_class_scores_batches_of_records(pool, alone, llama_folder, tmp_path):
    options = {"store": str(tmp_path), "device": "cpu"}
    scorer = ScorePrompts(str(llama_folder), WINDOWS, **options)
    records = [
        {"prompt_id": r.prompt_id, "prompt": pool.prompts[r.prompt_id].messages[0].content,
         "teacher": r.teacher, "response": r.text, "response_id": r.response_id}
        for r in pool.responses[:3]
    ]  # fmt: skip
    bad = {"prompt_id": "x", "prompt": "?", "teacher": "Ada", "response": 5, "response_id": "x/1"}
    found = scorer(pd.DataFrame([*records, bad]))
    assert found["response_id"].tolist() == [*alone["response_id"][:3], "x/1"]
    assert found["galp"].isna().tolist() == [False] * 3 + [True]
    assert "response" in found["reason"].iloc[-1]


@pytest.mark.slow
def test_a_pipeline_of_ray_data_reads_scores_and_writes(pool, alone, llama_folder, tmp_path):
    import ray

    write_scores(alone, pool, tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    columns = ["prompt_id", "prompt", "teacher", "response", "response_id"]
    frame = table.select(columns).to_pandas()
    frame["prompt"] = [prompt[0]["content"] for prompt in frame["prompt"]]
    (tmp_path / "pool").mkdir()
    for number, (_, rows) in enumerate(frame.groupby(frame["prompt_id"].str.len())):
        rows.to_parquet(tmp_path / "pool" / f"{number}.parquet", index=False)
    kept = {"student": str(llama_folder), "windows": WINDOWS, "device": "cpu"}
    kept |= {"store": str(tmp_path / "store")}
    records = ray.data.read_parquet(str(tmp_path / "pool"))
    # Half a processor, so that there is always one for reading and for writing.
    how = {"concurrency": 1, "num_cpus": 0.5, "batch_format": "pandas", "batch_size": None}
    scored = records.map_batches(ScorePrompts, fn_constructor_kwargs=kept, **how)
    scored.write_parquet(str(tmp_path / "out"))
    found = pd.concat(map(pd.read_parquet, sorted(Path(tmp_path, "out").glob("*.parquet"))))
    found = found.set_index("response_id").loc[alone["response_id"]].reset_index()
    names = ["galp", "lalp@1", "lalp@25%", "mean_rank", "mean_entropy"]
    # Rows of one worker's own number of threads: not of the last bit.
    assert_frame_equal(found[names], alone[names], atol=1e-5, rtol=0)


def test_the_command_writes_the_same_file_and_tells_bad_rows(
    pool, llama_folder, tmp_path, monkeypatch
):
    from lalp.cli.scores import score as command

    lines = [
        {"prompt_id": r.prompt_id, "prompt": pool.prompts[r.prompt_id].messages[0].content,
         "teacher": r.teacher, "response": r.text, "note": n}
        for n, r in enumerate(pool.responses)
    ]  # fmt: skip
    good, mixed = tmp_path / "good.jsonl", tmp_path / "mixed.jsonl"
    good.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mixed.write_text(good.read_text() + '{"prompt_id": 5}\nno json\n')
    options = {"student": str(llama_folder), "windows": list(WINDOWS), "quiet": True}
    options |= {"device": "cpu", "store": str(tmp_path / "store"), "parents": False}
    command(pool=str(good), out=tmp_path / "a.parquet", **options)
    cluster = {"ray": "auto", "workers": 1, "gpus_per_worker": 0.0}
    command(pool=str(mixed), out=tmp_path / "b.parquet", **options, **cluster)
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(tmp_path / "a.parquet"))
    ours, theirs = (load_scores(tmp_path / f"{name}.parquet").attrs for name in "ab")
    assert ours["scored_with"] == theirs["scored_with"]
    rejects = (tmp_path / "b.parquet.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in rejects] == ["line 48", "line 49"]


def test_a_pool_at_a_url_is_read(pool, tmp_path):
    path = tmp_path / "pool.jsonl"
    record = {"prompt_id": "p", "prompt": "?", "teacher": "Ada", "response": "Yes."}
    path.write_text(json.dumps(record) + "\n")
    found = read_pool(f"file://{path}", [].append)
    assert [response.text for response in found.responses] == ["Yes."]
    with pytest.raises(InputError, match="cannot be read"):
        read_pool(f"file://{tmp_path}/none.jsonl", [].append)
