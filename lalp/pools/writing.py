"""Write pools, and training files in several formats."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lalp.errors import InputError, did_you_mean
from lalp.files import atomic_path
from lalp.origins import ORIGIN, write_beside
from lalp.pools.lines import parse_json
from lalp.pools.pool import POOL_FIELDS, RESERVED_FIELDS, Message, Pool, Response, located, show
from lalp.pools.reading import is_parquet
from lalp.pools.records import build_pool
from lalp.pools.tables import ROWS_PER_BATCH

TRAINING_FORMATS = ("messages", "prompt-completion", "llamafactory")
JSON_LINES = (".jsonl", ".json-lines")
# Files that the format llamafactory writes in its folder, and those its export adds.
FOLDER_FILES = ("train.json", "dataset_info.json", "train.yaml", "zero3.json")


def save_pool(pool: Pool, path: str | os.PathLike, origin: Mapping[str, Any] | None = None) -> None:
    """Write a pool as JSONL or Parquet (by suffix); ``load_pool`` reads back an equal pool.

    ``origin`` says what made it (`lalp.origins`), in the Parquet file or beside the JSONL file.

    ``left_out`` is not written. In Parquet, extra fields of one plain type become columns of that
    type, all others columns of Parquet's JSON type. InputError if the pool could not be read back;
    then nothing is written.
    """
    path = Path(path)
    is_table = is_parquet(path)
    unused = pool.prompts.keys() - {response.prompt_id for response in pool.responses}
    if unused:
        which = f"{len(unused)} prompts have no response ({show(min(unused))})"
        form = "a pool file holds one response a record"
        raise InputError(f"{which}; {form}: drop such prompts first")
    # Anything that load_pool would refuse is refused here, before there is a file.
    records = enumerate((_record(pool, response) for response in pool.responses), 1)
    checked = build_pool(records, "pool to save", "response")
    if is_table:
        _write_parquet(checked, path, {ORIGIN: _json(origin)} if origin else {})
        return
    write_json_lines((_record(checked, r) for r in checked.responses), path)
    if origin:
        write_beside(path, origin)


def _record(pool: Pool, response: Response) -> dict[str, Any]:
    """The response as ``load_pool`` reads it."""
    which, prompt = f"response {show(response.response_id)}", pool.prompts.get(response.prompt_id)
    if prompt is None:
        unknown = show(response.prompt_id)
        raise InputError(f"{which} names prompt_id {unknown}, which the pool does not hold")
    for name in response.extra:
        if name in RESERVED_FIELDS:
            own = f"the extra field {show(name)} has the name of a record's own field"
            raise InputError(f"{which}: {own}; rename it")
    asked = prompt.messages[0].content if _is_text(prompt.messages) else chat(prompt.messages)
    said = list(response.turns) or response.text
    values = (response.prompt_id, asked, response.teacher, said, response.response_id)
    record = dict(zip(POOL_FIELDS, (*values, prompt.answer, response.correct), strict=True))
    record |= {"tools": list(prompt.tools) or None}
    return {name: value for name, value in record.items() if value is not None} | response.extra


def _is_text(messages: Iterable[Message]) -> bool:
    """Whether a prompt can be written as text: a single user message."""
    return [message.role for message in messages] == ["user"]


def chat(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as JSON holds them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def write_json_lines(records: Iterable[Any], path: str | os.PathLike) -> None:
    """Write one JSON value per line, in UTF-8 without escapes: all of them, or no file."""
    with atomic_path(path) as made, made.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{_json(record)}\n" for record in records)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_parquet(pool: Pool, path: Path, metadata: Mapping[str, str]) -> None:
    types = dict.fromkeys(POOL_FIELDS, pa.string()) | {"correct": pa.bool_()}
    is_text = all(_is_text(prompt.messages) for prompt in pool.prompts.values())
    if not is_text:
        types["prompt"] = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    extras = extra_types(pool.responses)
    # A response of several turns is not text, and tools are objects of any kind: JSON holds both.
    as_json = {"response": any(response.turns for response in pool.responses)}
    as_json |= {"tools": any(prompt.tools for prompt in pool.prompts.values())}
    types |= {name: pa.json_() for name, is_json in as_json.items() if is_json}
    schema = pa.schema(types | extras, metadata=metadata)
    in_json = [name for name in schema.names if schema.field(name).type == pa.json_()]
    # Checksums, because Arrow reads some damaged pages without an error.
    options = {"compression": "zstd", "write_page_checksum": True}
    with atomic_path(path) as made, pq.ParquetWriter(made, schema, **options) as writer:
        for start in range(0, len(pool.responses), ROWS_PER_BATCH):
            rows = []
            for response in pool.responses[start : start + ROWS_PER_BATCH]:
                row = _record(pool, response)
                if not is_text:
                    row["prompt"] = chat(pool.prompts[response.prompt_id].messages)
                rows.append(row | {name: _json(row[name]) for name in in_json if name in row})
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def extra_types(responses: Iterable[Response]) -> dict[str, pa.DataType]:
    """The Arrow type of each extra field, in order of first use: JSON if no plain type fits."""
    kinds: dict[str, type] = {}
    for response in responses:
        for name, value in response.extra.items():
            # JSON has integers of any size; Arrow's columns have 64 bits.
            fits = not isinstance(value, int) or -(2**63) <= value < 2**63
            kind = type(value) if fits else object
            if kinds.setdefault(name, kind) is not kind:
                kinds[name] = object
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return {name: plain.get(kind, pa.json_()) for name, kind in kinds.items()}


# --- Training files ----------------------------------------------------------------------------


def write_training(
    pool: Pool,
    response_ids: Sequence[str],
    path: str | os.PathLike,
    fmt: str = "messages",
    *,
    weights: Sequence[float] | None = None,
    chosen_by: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write the given responses, in the given order, as data to fine-tune on.

    Every record also holds ``prompt_id``, ``response_id`` and ``teacher``, known values of
    ``answer`` and ``correct``, and the pool's own fields. Fields without plain values of one type,
    or with the name of another field, are JSON in ``extra``. InputError, and nothing written, if an
    id is unknown or given twice, none is given, a weight is not a finite number of at least 0, or
    the folder's ``dataset_info.json`` cannot be extended.

    Args:
        pool: Holds the responses.
        response_ids: What to train on.
        path: The JSONL file to write; for ``llamafactory`` the folder.
        fmt: ``messages``: TRL's conversational language-modelling format (``load_pool`` reads it
            too). ``prompt-completion``: TRL's conversational prompt-completion format.
            ``llamafactory``: LLaMA-Factory's ``train.json`` and its entry ``train`` in
            ``dataset_info.json``; other entries in that file stay.
        weights: How much each response should count: the record's ``weight``, for trainers that
            read it. TRL, LLaMA-Factory and `lalp train` do not.
        chosen_by: More fields with a value for each response: the rule that chose it, its score.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lalp import load_pool
        >>> record = {"prompt_id": "p", "prompt": "2 + 2?", "teacher": "Ada", "response": "Four."}
        >>> pool = load_pool([record | {"response_id": "r"}])
        >>> with TemporaryDirectory() as folder:
        ...     write_training(pool, ["r"], f"{folder}/train.jsonl", "prompt-completion")
        ...     print(json.loads(Path(folder, "train.jsonl").read_text())["completion"])
        [{'role': 'assistant', 'content': 'Four.'}]
    """
    if fmt not in TRAINING_FORMATS:
        known = did_you_mean(fmt, TRAINING_FORMATS)
        raise InputError(f"unknown training format {show(fmt)}: {known}")
    chosen = _chosen_responses(pool, response_ids)
    by_response = _more_fields(pool, chosen, weights, chosen_by or {})
    path = Path(path)
    if fmt != "llamafactory" and path.suffix not in JSON_LINES:
        raise InputError(f"{path}: training data as {fmt} is JSONL: give a name in .jsonl")
    # LLaMA-Factory's file is refused before anything is written.
    info = _dataset_info(path, pool, chosen) if fmt == "llamafactory" else None
    records = []
    for response, more in zip(chosen, by_response, strict=True):
        prompt = pool.prompts[response.prompt_id]
        asked = chat(prompt.messages)
        answered = list(response.turns) or chat([Message("assistant", response.text)])
        if fmt == "prompt-completion":
            record = {"prompt": asked, "completion": answered}
        else:
            record = {"messages": asked + answered}
            # Otherwise a reader could not know which assistant turns to learn.
            record |= {"num_prompt_turns": len(asked)} if response.turns else {}
        record |= {"tools": list(prompt.tools)} if prompt.tools else {}
        ids = ("prompt_id", "response_id", "teacher")
        records.append(record | {name: getattr(response, name) for name in ids} | more)
    if info is None:
        write_json_lines(records, path)
        return
    # Both are written before either takes its place; the data come first.
    with (
        atomic_path(path / "dataset_info.json") as info_path,
        atomic_path(path / "train.json") as data_path,
    ):
        text = json.dumps(info, ensure_ascii=False, indent=2)
        info_path.write_text(f"{text}\n", encoding="utf-8")
        lines = ",\n".join(map(_json, records))
        data_path.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")


def _chosen_responses(pool: Pool, response_ids: Sequence[str]) -> list[Response]:
    by_id = {response.response_id: response for response in pool.responses}
    counts = Counter(response_ids)
    if not counts:
        raise InputError("no responses to write: the list of response ids is empty")
    for response_id, count in counts.items():
        if response_id not in by_id:
            raise InputError(f"response id {show(response_id)} is not in the pool")
        if count > 1:
            given = f"response id {show(response_id)} is given {count} times"
            raise InputError(f"{given}; give it once")
    return [by_id[response_id] for response_id in counts]


# Names in a training record that no field of the pool's own may take.
_TAKEN = {*RESERVED_FIELDS, "tools", "completion", "weight", "rule", "score", "extra"}


def _more_fields(
    pool: Pool,
    responses: Sequence[Response],
    weights: Sequence[float] | None,
    chosen_by: Mapping[str, Sequence[Any]],
) -> list[dict[str, Any]]:
    """The content of each record besides its texts and ids."""
    types = extra_types(responses)
    plain = {n for n, kind in types.items() if kind != pa.json_() and n not in _TAKEN}
    fields = []
    for place, (response, weight) in enumerate(
        zip(responses, _weight_fields(responses, weights), strict=True)
    ):
        known = {"answer": pool.prompts[response.prompt_id].answer, "correct": response.correct}
        own = {name: value for name, value in response.extra.items() if name in plain}
        rest = {name: value for name, value in response.extra.items() if name not in plain}
        more = known | own | ({"extra": _json(rest)} if rest else {})
        more |= {name: values[place] for name, values in chosen_by.items()}
        fields.append({name: value for name, value in more.items() if value is not None} | weight)
    # Every record has the same fields, because JSON readers take them from the first ones.
    names = dict.fromkeys(name for record in fields for name in record)
    return [{name: record.get(name) for name in names} for record in fields]


def _weight_fields(
    responses: Sequence[Response], weights: Sequence[float] | None
) -> list[dict[str, float]]:
    """The weight fields of each response's record."""
    if weights is None:
        return [{} for _ in responses]
    if len(weights) != len(responses):
        raise InputError(f"{len(responses)} responses have {len(weights)} weights: give one each")
    for response, weight in zip(responses, weights, strict=True):
        if not 0 <= weight < math.inf:
            which = f"response {show(response.response_id)} has the weight {weight}"
            raise InputError(f"{which}: give a finite number from 0 on")
    return [{"weight": float(weight)} for weight in weights]


_LLAMAFACTORY_ENTRY = {
    "file_name": "train.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {f"{tag}_tag": tag for tag in ("role", "content", "user", "assistant", "system")},
}


def _dataset_info(folder: Path, pool: Pool, responses: Sequence[Response]) -> dict[str, Any]:
    """The folder's ``dataset_info.json`` with this project's entry added."""
    for response in responses:
        prompt = pool.prompts[response.prompt_id]
        if response.turns or prompt.tools:
            what = f"response {show(response.response_id)} has several turns, or tools"
            advice = "train with lalp train, or write messages for a trainer that reads tools"
            raise InputError(f"{what}; LLaMA-Factory writes them in forms of its own: {advice}")
        roles = [message.role for message in prompt.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        # LLaMA-Factory skips other chats with only a warning.
        if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
            found = f"prompt {show(response.prompt_id)} has the turns {', '.join(roles)}"
            needed = "user and assistant in turn after at most one system message"
            advice = "use another format or leave the prompt out"
            raise InputError(f"{found}; LLaMA-Factory needs {needed}: {advice}")
    path = folder / "dataset_info.json"
    advice = "fix it or give another folder"
    with located(str(path)):
        try:
            info = parse_json(path.read_text("utf-8"), advice) if path.exists() else {}
        except (UnicodeDecodeError, OSError) as error:
            raise InputError(str(error)) from None
        if not isinstance(info, dict):
            raise InputError(f"must be a JSON object; {advice}")
        if info.get("train", _LLAMAFACTORY_ENTRY) != _LLAMAFACTORY_ENTRY:
            raise InputError("has another entry 'train'; rename it or give another folder")
    return info | {"train": _LLAMAFACTORY_ENTRY}
