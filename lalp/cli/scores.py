"""Commands on steps and scores: segment, plan, score, selftest, teachers, select, show, report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from lalp.cli import options
from lalp.cli.pools import reject_line
from lalp.cli.printing import (
    print_cost,
    print_result,
    print_selection,
    print_selftest,
    print_steps,
    print_teachers,
    say,
)
from lalp.errors import InputError
from lalp.files import write_text
from lalp.origins import ORIGIN, origin, write_beside
from lalp.pools.parts import Part, parse_part, pool_part
from lalp.pools.pool import located
from lalp.pools.reading import load_pool
from lalp.pools.writing import JSON_LINES, write_training

if TYPE_CHECKING:
    import pandas as pd
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from lalp.cluster.workers import Workers
    from lalp.pools.importing import Reject
    from lalp.pools.pool import Pool
    from lalp.steps.splitters import Steps

# Modules that need torch are imported where they are used. Importing torch takes seconds, and
# `lalp check` should not wait for it.
app = Typer()

# Four sentences, as in the paper's first version. Later versions do not name their window.
_WINDOWS = ["4"]
_STORE = "Folder or URL where scores are kept (see lalp cache); several runs may share it."
_RAY = "Score on a Ray cluster: its address, or auto for the cluster of this machine."
_GPUS = "GPUs per worker; default: 1; 0 to score on CPUs."
_SHARD = "Score only the I-th of N parts of the prompts; lalp merge joins the tables."
_COUNTS = "Student whose tokens 32t counts and whose template joins thoughts, as in lalp score."
_MEASURE = "Load the student and score a few prompts, for a narrower range of time."
_LLM_URL = "Base URL of an OpenAI-compatible server; a key is read from LALP_LLM_API_KEY."
_LLM_INSTRUCTION = "Instruction to send: a text file with {solution} and perhaps {problem} in it."
_RULES = (
    "random, galp, galp-middle, galp-lowest, lalp, lalp-lowest, hybrid, galp-tail, lalp-tail, rsr, "
    "galp-casl, lalp-casl."
)
_LIKE = "With --rule random: take as many responses per teacher as this rule, with the same limits."
_SKIP = "Leave out responses without a score instead of stopping."
_TEACHER = "Choose only among responses of this teacher; repeatable."
_WHERE = "Choose only among responses that meet this, such as correct or 'level >= 4'; repeatable."
_MIN_SCORE = "Leave out responses with a lower score, in nats per token."
_PER_PROMPT = "Maximum number of responses per prompt."
_QUOTA = "A teacher's share of the selection; repeatable."
_TOP = "Keep the best part: 20% of all chosen responses, or 20%/teacher for 20% of each teacher's."
_MAX_TOKENS = "Maximum number of response tokens in the whole selection."
_WEIGHTS = "Write a weight into each record, from its lead over the best response left out."
_TEXT = "Print the numbered steps of each response; --out is then optional."
_TESTED = "A few prompts with several responses each; default: four prompts of the example pool."
_FIRST_WINDOW = f"{options.WINDOWS_HELP} Selection uses the first."
_SHOWN = "Local window; repeatable with --prompt, which by default shows all windows of a table."
_SHOWN_FILE = "Table written by lalp score --tokens; with --prompt also a pool, which is scored."
_SHOWN_PROMPT = "Show all responses to this prompt side by side, and mark the choice of each score."
_SHOWN_STUDENT = "Student that scores a pool; default: smollm2-135m. A table is scored already."


@app.command()
@options.writes_out
def segment(
    pool: options.PoolFile,
    out: Annotated[Path | None, Option(help="JSONL to write: one response per line.")] = None,
    text: Annotated[bool, Option("--text", help=_TEXT)] = False,
    splitter: Annotated[str, Option(help=f"{options.SPLITTERS}; also llm.")] = "sentences",
    student: Annotated[str | None, Option(help=_COUNTS)] = None,
    thinking: options.Thinking = "join",
    llm_url: Annotated[str | None, Option(help=_LLM_URL)] = None,
    llm_model: Annotated[str | None, Option(help="The model's name on the server.")] = None,
    llm_instruction: Annotated[str | None, Option(metavar="FILE", help=_LLM_INSTRUCTION)] = None,
    llm_concurrency: Annotated[int, Option(min=1, help="Requests at once.")] = 16,
    llm_timeout: Annotated[float, Option(min=0.1, help="Seconds for one answer.")] = 600,
    as_json: options.AsJson = False,
) -> None:
    """Cut each response into steps; write their [start, end) character offsets, or print them."""
    _check_segment(out, text, as_json)
    if splitter != "llm" and (llm_url or llm_model or llm_instruction):
        raise InputError(f"--llm options go with --splitter llm, not {splitter}: leave them out")
    if splitter == "llm" and not (llm_url and llm_model):
        raise InputError("--splitter llm needs --llm-url and --llm-model: whom to ask")
    loaded, tokenizer = load_pool(pool), None
    from lalp.steps.splitters import (
        BY_TEXT,
        chunk_size,
        count_reasons,
        split_response,
        write_steps,
    )

    if student is None and chunk_size(splitter):
        student = "smollm2-135m"
    if student or thinking != "join":  # only these need torch
        from lalp.students.student import load_tokenizer
        from lalp.students.thinking import shape_thinking

        tokenizer = load_tokenizer(student) if student else None
        loaded = shape_thinking(loaded, thinking, tokenizer)
    if out is None and splitter in BY_TEXT:
        # Responses are cut one by one, so that the first steps of a large pool appear at once.
        for response in loaded.responses:
            print_steps(response.response_id, response.text, split_response(response, splitter))
        return
    llm = {"instruction": llm_instruction, "concurrency": llm_concurrency, "timeout": llm_timeout}
    llm |= {"url": llm_url, "model": llm_model}
    steps, fallbacks = _cut(loaded, splitter, tokenizer, llm)
    if out is not None:
        num_steps = write_steps(out, loaded, steps, fallbacks)
        settings = {"splitter": splitter, "student": student, "thinking": thinking}
        settings |= {"llm_model": llm_model} if splitter == "llm" else {}
        inputs = {"pool": pool, "instruction": llm_instruction}
        write_beside(out, origin("segment", inputs, **settings))
        say(f"{len(loaded.responses)} responses cut into steps: {out}")
    for reason, count in count_reasons(fallbacks).items():
        say(f"{count} of them into sentences: {reason}")
    if text:
        for response in loaded.responses:
            print_steps(response.response_id, response.text, steps[response.response_id])
        return
    result = {
        "num_responses": len(loaded.responses),
        "num_steps": num_steps,
        "fallbacks": fallbacks,
    }
    print_result(result, as_json)


def _cut(
    pool: Pool, splitter: str, tokenizer: PreTrainedTokenizerBase | None, llm: dict[str, Any]
) -> tuple[Steps, dict[str, str]]:
    """The steps of every response, and by id the reason if its steps had to be sentences."""
    if splitter == "llm":
        from lalp.steps.llm import INSTRUCTION, load_instruction, split_with_llm

        own = llm["instruction"]
        llm = llm | {"instruction": load_instruction(own) if own else INSTRUCTION}
        cut = split_with_llm(pool, **llm)
        return cut.steps, cut.fallbacks
    from lalp.steps.splitters import split_pool

    return split_pool(pool, splitter, tokenizer=tokenizer), {}


def _check_segment(out: Path | None, text: bool, as_json: bool) -> None:
    """Refuse steps that are neither written nor printed, or that are printed in two forms."""
    if out is not None:
        options.check_out(out, "steps are written as JSONL", *JSON_LINES)
    elif not text:
        raise InputError("the steps go nowhere: give --text to read them, --out FILE to keep them")
    if text and as_json:
        raise InputError("--text and --json both print: give one of them")


@app.command()
def plan(
    pool: options.PoolFile,
    student: options.StudentName = "smollm2-135m",
    windows: options.Windows = None,
    splitter: options.Splitter = "sentences",
    thinking: options.Thinking = "join",
    measure: Annotated[bool, Option("--measure", help=_MEASURE)] = False,
    dtype: options.DType = None,
    trust_remote_code: options.TrustCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Estimate tokens, FLOPs, time and memory of scoring, before anything runs."""
    loaded = load_pool(pool)
    from lalp.scoring.estimate import plan_scoring

    settings = {"splitter": splitter, "thinking": thinking, "measure": measure}
    settings |= {"dtype": dtype, "trust_remote_code": trust_remote_code}
    cost = asdict(plan_scoring(loaded, student, windows or _WINDOWS, **settings))
    print_result(cost, as_json, print_cost)


@app.command()
@options.writes_out
def score(
    pool: options.PoolFile,
    out: Annotated[Path, Option(help="Parquet to write: one row per response.")],
    student: options.StudentName = "smollm2-135m",
    windows: options.Windows = None,
    splitter: options.Splitter = "sentences",
    thinking: options.Thinking = "join",
    tokens: Annotated[bool, Option(help="Keep per-token log-probabilities.")] = False,
    shard: Annotated[str | None, Option(metavar="I/N", help=_SHARD)] = None,
    ray: Annotated[str | None, Option(metavar="auto|ADDRESS", help=_RAY)] = None,
    workers: Annotated[int | None, Option(help="Workers on the cluster; default: 1.")] = None,
    gpus_per_worker: Annotated[float | None, Option(help=_GPUS)] = None,
    store: Annotated[str | None, Option(help=_STORE)] = None,
    device: options.Device = None,
    dtype: options.DType = None,
    trust_remote_code: options.TrustCode = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Score every response by GALP, and by LALP at each window.

    A killed run continues where it stopped.
    """
    options.check_out(out, "scores are written as Parquet", ".parquet")
    part = parse_part(shard) if shard else None
    cluster = _cluster(ray, workers, gpus_per_worker, part)
    rejects: list[Reject] = []
    loaded = whole = _read(pool, rejects) if cluster else load_pool(pool)
    if part:
        loaded, places = pool_part(loaded, part)
    import numpy as np

    from lalp.scoring import run
    from lalp.scoring.selftest import known_selftest
    from lalp.scoring.table import POOL_ROW, write_scores
    from lalp.students.student import find_student, parse_dtype
    from lalp.students.thinking import shape_thinking

    precision = parse_dtype(dtype) if dtype else None
    settings = {"splitter": splitter, "with_tokens": tokens, "store": store}
    settings |= {"progress": not quiet}
    options_ = {"device": device, "dtype": precision, "trust_remote_code": trust_remote_code}
    found = find_student(student, **options_)
    loaded = shape_thinking(loaded, thinking, found.tokenizer)
    if cluster:
        from lalp.cluster.scores import score_on_ray

        settings |= options_ | {"dtype": dtype, "on_reject": rejects.append}
        frame, loaded = score_on_ray(loaded, cluster, student, windows or _WINDOWS, **settings)
        whole = None
    else:
        frame = run.score(loaded, found, windows or _WINDOWS, **settings)
    frame.attrs["scored_with"]["thinking"] = thinking
    if tested := known_selftest(frame.attrs["scored_with"]):
        frame.attrs["scored_with"]["selftest"] = tested
    if part:
        frame[POOL_ROW] = np.asarray(places)
        frame.attrs["scored_with"]["shard"] = shard
    inputs = {"pool": pool, "steps": splitter if Path(splitter).is_file() else None}
    facts = {"student": student, "windows": windows or _WINDOWS, "splitter": splitter}
    facts |= {"thinking": thinking}
    frame.attrs[ORIGIN] = origin("score", inputs, **facts)
    write_scores(frame, loaded, out, whole)
    _write_rejects(rejects, f"{out}.rejects.jsonl")
    reasons = frame.set_index("response_id")["reason"].dropna()
    result = {"num_responses": len(frame), "unscored": reasons.to_dict(), **frame.attrs}
    print_result(result, as_json)
    say(f"{len(frame)} responses scored: {out}")
    if len(reasons):
        example = f"{reasons.index[0]}: {reasons.iloc[0]}"
        say(f"{len(reasons)} of them lack a score, for example {example}")


def _cluster(
    ray: str | None, workers: int | None, gpus: float | None, part: Part | None
) -> Workers | None:
    """The workers that the options ask for; None without ``--ray``."""
    if ray is None:
        if workers is not None or gpus is not None:
            raise InputError("--workers and --gpus-per-worker go with --ray: give that, too")
        return None
    if part:
        raise InputError("--shard goes without --ray, which shares the work by itself: give one")
    from lalp.cluster.workers import Workers

    return Workers(ray, 1 if workers is None else workers, 1 if gpus is None else gpus)


def _read(pool: str, rejects: list[Reject]) -> Pool:
    from lalp.cluster.scores import read_pool  # imports torch

    return read_pool(pool, rejects.append)


def _write_rejects(rejects: list[Reject], path: str) -> None:
    if rejects:
        write_text(path, "".join(map(reject_line, rejects)))
        say(f"{len(rejects)} rows or prompts left out, with their reasons: {path}")


@app.command()
def selftest(
    pool: Annotated[str | None, Argument(metavar="[POOL]", help=_TESTED)] = None,
    student: options.StudentName = "smollm2-135m",
    windows: options.Windows = None,
    splitter: options.Splitter = "sentences",
    device: options.Device = None,
    dtype: options.DType = None,
    trust_remote_code: options.TrustCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure how order, batches, kernels and dtypes change scores and choices on this machine.

    The exit code is 1 if scores in float32 change by more than the limit.
    """
    from lalp.report.page import EXAMPLE_POOL
    from lalp.scoring.selftest import first_prompts, selftest

    loaded = load_pool(pool) if pool else first_prompts(load_pool(str(EXAMPLE_POOL)), 4)
    settings = {"splitter": splitter, "device": device, "dtype": dtype}
    settings |= {"trust_remote_code": trust_remote_code}
    found = selftest(loaded, student, windows or ["1", "4"], **settings)
    print_result({"facts": found.facts, "changes": found.table}, as_json, print_selftest)
    if not found.holds:
        say("scores move by more than they may: please report this table, with the student's name")
        raise Exit(1)


@app.command()
def teachers(
    scores: options.ScoresFile,
    windows: options.Windows = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Rank teachers by mean score over the same prompts, with intervals."""
    from lalp.scoring.table import load_scores
    from lalp.selection.cautions import ranking_cautions
    from lalp.selection.ranking import (
        compare_rankings,
        first_place,
        prompts_enough,
        rank_teachers,
    )

    frame = load_scores(scores)
    with located(scores):
        columns = _columns(frame, windows)
        rankings = {column: rank_teachers(frame, column, seed=seed) for column in columns}
    result = {"rankings": rankings, "kendall_tau": {}, "prompts_enough": {}, "first_place": {}}
    for name in ("num_prompts", "left_out"):
        result[name] = {column: table.attrs[name] for column, table in rankings.items()}
    # With one teacher there is no order to compare, and none that more prompts could settle.
    if frame["teacher"].nunique() > 1:
        result["kendall_tau"] = compare_rankings(frame, columns).to_dict()
        result["prompts_enough"] = {c: prompts_enough(frame, c, seed=seed) for c in columns}
        result["first_place"] = {c: asdict(first_place(frame, c)) for c in columns}
    result["warnings"] = ranking_cautions(frame, rankings)
    print_result(result, as_json, print_teachers)
    for warning in result["warnings"]:
        say(warning)


@app.command()
@options.writes_out
def select(
    scores: options.ScoresFile,
    rule: Annotated[str, Option(help=_RULES)],
    out: Annotated[Path, Option(help="File to write (a folder for llamafactory).")],
    window: Annotated[str | None, Option(help="Window for lalp and hybrid rules.")] = None,
    fmt: Annotated[str, Option("--format", help=f"{options.FORMATS}.")] = "messages",
    like: Annotated[str | None, Option(help=_LIKE)] = None,
    teacher: Annotated[list[str] | None, Option(help=_TEACHER)] = None,
    where: Annotated[list[str] | None, Option(metavar="CONDITION", help=_WHERE)] = None,
    min_score: Annotated[float | None, Option(help=_MIN_SCORE)] = None,
    per_prompt: Annotated[int, Option(min=1, metavar="K", help=_PER_PROMPT)] = 1,
    quota: Annotated[list[str] | None, Option(metavar="TEACHER=SHARE", help=_QUOTA)] = None,
    top: Annotated[str | None, Option(metavar="SHARE", help=_TOP)] = None,
    max_tokens: Annotated[int | None, Option(min=1, metavar="N", help=_MAX_TOKENS)] = None,
    weights: Annotated[bool, Option("--weights", help=_WEIGHTS)] = False,
    tie: Annotated[str, Option(help="Rule for equal scores: first, shortest or random.")] = "first",
    skip_unscored: Annotated[bool, Option(help=_SKIP)] = False,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Choose responses, by default one per prompt, and write a training file."""
    options.check_training_out(out, fmt)
    from lalp.scoring.table import load_scores, scored_pool
    from lalp.selection import limits, matched, rules
    from lalp.selection.table import only_window

    frame = load_scores(scores)
    if like is not None and rule != "random":
        raise InputError(f"--like goes with --rule random, not with --rule {rule}: leave it out")
    settings = {"seed": seed, "tie": tie, "skip_unscored": skip_unscored, "weights": weights}
    settings |= {"teachers": teacher or (), "where": where or (), "min_score": min_score}
    settings |= {"per_prompt": per_prompt, "quota": limits.parse_quotas(quota or ())}
    settings |= {"top": top, "max_tokens": max_tokens}
    # The control takes as many responses of each teacher as the rule that it is compared with.
    choose = rules.select if like is None else matched.select_control
    with located(scores):
        chosen = choose(frame, like or rule, window, **settings)
    ids, counted = list(chosen["response_id"]), chosen["weight"] if weights else None
    by = {"rule": [f"{rule}, like {like}" if like else rule] * len(ids)}
    if rule != "random":
        windowed = rule.startswith(("lalp", "hybrid")) and window is None
        column = rules.score_column(rule, only_window(frame) if windowed else window)
        by |= {"score": [float(score) for score in chosen[column]]}
    settings_of_file = {"weights": counted, "chosen_by": by}
    write_training(scored_pool(frame, scores), ids, out, fmt, **settings_of_file)
    facts = {"rule": rule, "window": window, "like": like, **settings}
    made = origin("select", {"scores": scores}, **facts)
    options.say_origin(out, fmt, made | {"scores": frame.attrs})
    result = {
        "num_selected": len(chosen),
        "teacher_mix": rules.teacher_mix(chosen).to_dict("index"),
        "left_out": chosen.attrs["left_out"],
        "response_ids": ids,
    }
    if max_tokens is not None:
        result["num_tokens"] = int(chosen["num_tokens"].sum())
    print_result(result, as_json, print_selection)
    say(f"{len(chosen)} responses written: {out}")


@app.command()
@options.writes_out
def show(
    file: Annotated[str, Argument(metavar="SCORES|POOL", help=_SHOWN_FILE)],
    out: Annotated[Path, Option(help="HTML page to write.")],
    response_id: Annotated[str | None, Option(help="Show this response.")] = None,
    prompt: Annotated[str | None, Option(help=_SHOWN_PROMPT)] = None,
    windows: Annotated[list[str] | None, Option("--window", help=_SHOWN)] = None,
    student: Annotated[str | None, Option(help=_SHOWN_STUDENT)] = None,
) -> None:
    """Draw responses as heat maps that show what each token gains from text outside the window."""
    options.check_out(out, "a heat map is an HTML page", ".html", ".htm")
    if (response_id is None) == (prompt is None):
        raise InputError("give --response-id or --prompt: one response, or all of one prompt")
    from lalp.scoring.table import holds_scores, load_scores

    is_scored = prompt is None or holds_scores(file)
    if student and is_scored:
        raise InputError(f"--student scores a pool, {file} is read as a score table: leave it out")
    if prompt is not None:
        from lalp.report.side_by_side import WINDOWS, score_prompt, write_side_by_side

        if is_scored:
            scores = load_scores(file)
        else:
            name = student or "smollm2-135m"
            scores = score_prompt(load_pool(file), prompt, name, windows or WINDOWS, where=file)
        write_side_by_side(scores, prompt, out, windows, where=file)
        say(f"{(scores['prompt_id'] == prompt).sum()} responses to {prompt}: {out}")
        return
    if windows and len(windows) > 1:
        raise InputError("--response-id shows one window: give --window once, or --prompt")
    from lalp.scoring.heat_map import write_heat_map

    write_heat_map(load_scores(file), response_id, out, *windows or (), where=file)
    say(f"heat map of {response_id}: {out}")


@app.command()
@options.writes_out
def report(
    pool: options.PoolFile,
    out: Annotated[Path, Option(help="HTML page to write.")] = Path("report.html"),
    student: options.StudentName = "smollm2-135m",
    windows: Annotated[list[str] | None, Option("--window", help=_FIRST_WINDOW)] = None,
    quiet: options.Quiet = False,
) -> None:
    """Check, score, rank, select and draw a pool with a notebook, and write one HTML page."""
    options.check_out(out, "a report is an HTML page", ".html", ".htm")
    from lalp.report.page import write_report

    number = write_report(pool, out, student, windows or _WINDOWS, progress=not quiet)
    say(f"report of {number} responses: {out}")


def _columns(frame: pd.DataFrame, windows: list[str] | None) -> list[str]:
    """GALP's column, and those of the given windows, or of all windows in the table."""
    from lalp.scoring.columns import lalp_column, score_columns
    from lalp.scoring.windows import parse_windows

    present = [column for column in score_columns(frame) if column != "galp"]
    wanted = [lalp_column(window) for window in parse_windows(windows)] if windows else present
    lacking = [column for column in wanted if column not in present]
    if lacking:
        held = ", ".join(present)
        raise InputError(f"{lacking[0]} is not in the table, it holds {held}: score it first")
    return ["galp", *wanted]
