"""How commands print results, as JSON for programs or as lines for people, and messages."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import yaml
from pydantic_core import to_json
from typer import echo


def is_main_process() -> bool:
    """Whether this process may print; accelerate launch numbers its processes."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """Print one line on standard error."""
    if is_main_process():
        echo(f"lalp: {message}", err=True)


def print_result(
    value: Any, as_json: bool, for_people: Callable[[Any], None] | None = None
) -> None:
    """Print a command's result on standard output, as JSON or with ``for_people``."""
    if as_json:
        # NaN means not known and must become null. json.dumps cannot do that.
        text = to_json(value, indent=1, inf_nan_mode="null", fallback=_plain)
        echo(text.decode())
    elif for_people:
        for_people(value)


def _plain(value: Any) -> Any:
    """Turn a table into the list of its rows, and a numpy number into a Python number."""
    return value.to_dict("records") if hasattr(value, "to_dict") else value.item()


# --- For people --------------------------------------------------------------------------------


def print_counts(counts: Mapping[Any, int], text: str = "{}", indent: str = "  ") -> None:
    """Print one line for each count; ``{}`` in the text stands for what is counted.

    Example:
        >>> print_counts({"blank line": 1234}, "left out: {}")
             1,234  left out: blank line
    """
    for name, count in counts.items():
        echo(f"{indent}{count:>8,}  {text.format(name)}")


def print_pool(summary: Mapping[str, Any]) -> None:
    """Print the counts of `pool_summary`."""
    echo(f"{summary['num_prompts']} prompts, {summary['num_responses']} responses")
    print_counts(summary["responses_by_teacher"])
    print_counts(summary["prompts_by_num_teachers"], "prompts with responses by {} teacher(s)")
    print_counts({mark: summary[f"num_{mark}"] for mark in ("correct", "incorrect", "unverified")})
    print_counts({"prompts with a reference answer": summary["num_prompts_with_answer"]})
    if summary["num_multi_turn"]:
        print_counts({"responses of several assistant's turns": summary["num_multi_turn"]})
    if summary["num_duplicate_texts"]:
        print_counts({"repeat another response's text": summary["num_duplicate_texts"]})
    print_counts(summary["left_out"], "left out: {}")
    if "steps" in summary:
        is_part = summary["steps"]["num_responses"] < summary["num_responses"]
        _print_step_summary(summary["steps"], is_part=is_part)
    if "preview" in summary:
        _print_preview(summary["preview"])


def _print_preview(shown: Mapping[str, Any]) -> None:
    """Print what a student reads of a pool; texts are shown as Python literals."""
    template = "chat template" if shown["has_template"] else "no chat template: a base model"
    echo(f"{shown['student']}: {shown['positions']:,} positions, {template}")
    for name in ("prompt_tokens", "response_tokens"):
        spread = ", ".join(f"{key} {count:,}" for key, count in shown[name].items())
        echo(f"  {name.replace('_', ' ')}: {spread}")
    echo(f"  exceed its positions: {_some(shown['too_long'])}")
    if shown["unreadable"]:
        echo(f"  cannot be read in full: {_some(shown['unreadable'])}")
    echo(f"  {shown['response_id']} as it is read:")
    echo(f"    before the prompt  {shown['system']!r}")
    echo(f"    end of the prompt  {shown['prompt_end']!r}")
    echo(f"    response           {shown['response_start']!r}")
    if shown["response_end"] != shown["response_start"]:
        echo(f"    ...                {shown['response_end']!r}")
    echo(f"    end of the turn    {shown['end_of_turn']!r}")
    before, between = shown["thought"]
    echo(f"  thoughts are joined as {before!r} thought {between!r} answer")


def _some(names: Collection[str]) -> str:
    """The number of names, with the first one as an example."""
    return f"{len(names):,}" + (f", for example {next(iter(names))}" if names else "")


def _print_step_summary(steps: Mapping[str, Any], *, is_part: bool) -> None:
    """Print the counts of `step_summary`."""
    drawn = ", drawn at random" if is_part else ""
    echo(f"steps (sentences) of {steps['num_responses']:,} responses{drawn}")
    for name, what in (("steps_per_response", "steps"), ("characters_per_step", "characters")):
        found = "{median:>8,}  {what} at the median, {p5:,} to {p95:,} in 9 of 10, {max:,} at most"
        place = "a response" if what == "steps" else "a step"
        echo(f"  {found.format(**steps[name], what=f'{what} of {place}')}")
    if steps["num_one_step"]:
        share = steps["num_one_step"] / steps["num_responses"]
        print_counts({f"one step only ({share:.1%}): LALP is GALP there": steps["num_one_step"]})
    unknown = "in {}, where only lines end a step: cut with --splitter llm or 32t instead"
    print_counts(steps["unknown_scripts"], unknown)


def print_steps(response_id: str, text: str, spans: Sequence[tuple[int, int]]) -> None:
    r"""Print the numbered steps of a response; characters that control a terminal are escaped.

    Example:
        >>> print_steps("p/A/0", "We add:\n3 + 4. So 7.", [(0, 15), (15, 20)])
        p/A/0
          1  We add:
             3 + 4.
          2  So 7.
        <BLANKLINE>
    """
    echo(_visible(response_id))
    width = len(str(len(spans)))
    for number, (start, end) in enumerate(spans, 1):
        lines = map(_visible, text[start:end].strip().splitlines())
        echo(f"  {number:>{width}}  " + f"\n{'':{width + 4}}".join(lines))
    echo()


def _visible(line: str) -> str:
    """A line with escapes for characters that control a terminal."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) == "Cc" else c
        for c in line.expandtabs(4)
    )


def print_origin(facts: Mapping[str, Any]) -> None:
    """Print the result of `lalp.origins.read_origin`."""
    echo(yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True, width=100), nl=False)


def print_cost(cost: Mapping[str, Any]) -> None:
    """Print the estimates of `plan_scoring`."""
    text = (
        "{num_responses:,} responses, {num_steps:,} steps, {response_tokens:,} response tokens\n"
        "{fed_tokens:,} tokens to feed, {target_tokens:,} to predict, longest row {longest_row:,}\n"
        "{tflop:,.2f} TFLOP ({gain:.1f} times fewer than one pass per step and window)\n"
        "{low} to {high} on this machine ({device}, {dtype}), loading the student not counted:\n"
        "  {basis}\n"
        "about {gib:.1f} GiB of memory at most"
    )
    if cost["planned_prompts"] < cost["num_prompts"]:
        text = "estimated from {planned_prompts:,} of {num_prompts:,} prompts\n" + text
    gain = cost["flops_per_step_loop"] / max(cost["flops"], 1.0)
    tflop, gib = cost["flops"] / 1e12, cost["memory_bytes"] / 2**30
    low, high = _duration(cost["seconds_low"]), _duration(cost["seconds_high"])
    echo(text.format(**cost, gain=gain, tflop=tflop, low=low, high=high, gib=gib))
    if cost["too_long"]:
        echo(f"{cost['too_long']} responses exceed the student's positions: no GALP")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_selftest(result: Mapping[str, Any]) -> None:
    """Print the result of `lalp.scoring.selftest.selftest`."""
    facts = result["facts"]
    dtype = facts["dtype"].removeprefix("torch.")
    echo(f"{dtype} on {facts['device']}, attention by {facts['attention']}")
    echo(f"{'nats: largest':>35} {'mean':>8} {'equal':>6} {'choices':>10} {'places':>6}")
    for row in result["changes"].itertuples():
        over = "  above its limit" if row.largest > row.limit else ""
        choices = f"{row.choices} of {row.prompts}"
        echo(
            f"{row.change:<28.28} {row.largest:6.0e} {row.mean:8.0e} {row.same:6.0%} {choices:>10} "
            f"{row.places:>6}{over}"
        )


def print_teachers(result: Mapping[str, Any]) -> None:
    """Print a ranking for each score, and how far the rankings agree."""
    # This is imported here, so that `lalp check` does not wait for scipy.
    from lalp.selection.ranking import FirstPlace, fewest_prompts

    for column, table in result["rankings"].items():
        num_prompts = result["num_prompts"][column]
        echo(f"{column}, nats per token, {num_prompts} prompts in common")
        for row in table.itertuples():
            interval = f"[{row.low:.4f}, {row.high:.4f}]  first in {row.p_top:.0%} of resamples"
            # An interval needs two prompts.
            known = interval if num_prompts > 1 else "too few prompts for an interval"
            echo(f"  {row.rank}. {row.teacher:<24} {row.mean:8.4f}  {known}")
        for reason, count in result["left_out"][column].items():
            echo(f"  left out: {count} {reason}")
        if column in result["first_place"]:
            echo(f"  {FirstPlace(**result['first_place'][column])}")
        if column in result["prompts_enough"] and num_prompts > 1:
            fewest = fewest_prompts(result["prompts_enough"][column])
            none = f"no number up to {num_prompts:,} of"
            some = none if math.isnan(fewest) else f"{fewest:,.0f}"
            echo(f"  {some} prompts like these name the same first teacher in 95 % of draws")
    if result["kendall_tau"]:
        echo("Kendall tau with the order under galp")
        for column, tau in result["kendall_tau"]["galp"].items():
            # A number that is not equal to itself is NaN: all teachers tie.
            echo(f"  {tau:6.2f}  {column}" if tau == tau else f"   (tie)  {column}")


def print_selection(result: Mapping[str, Any]) -> None:
    """Print how many responses of each teacher a selection holds."""
    for teacher, row in result["teacher_mix"].items():
        echo(f"{row['count']:>8,.0f}  {row['percent']:5.1f} %  {teacher}")
    if "num_tokens" in result:
        echo(f"{result['num_tokens']:>8,}  response tokens")
    print_counts(result["left_out"], "left out: {}", indent="")


def print_sampling(summary: Mapping[str, Any]) -> None:
    """Print the counts of `sample_pool`."""
    text = (
        "{num_samples} samples of {num_prompts} prompts, {num_tokens:,} tokens "
        "({mean_tokens:,.0f} on average), {truncated:.1%} truncated"
    )
    if summary["accuracy"] is not None:
        text += "\n{accuracy:.1%} correct; {solved} prompts solved at least once"
    echo(text.format_map(summary))
    print_counts(summary["outcomes"])
    print_counts(summary["left_out"], "left out: {}")


def print_accuracy(report: Mapping[str, Any]) -> None:
    """Print a line for each benchmark of `accuracy_table`."""
    for row in report["accuracy"].itertuples():
        samples = f" x {row.num_samples} samples" if row.num_samples > 1 else ""
        echo(
            f"{row.accuracy:6.3f} [{row.low:.3f}, {row.high:.3f}]  {row.title}: "
            f"{row.num_problems} problems{samples}, {row.truncated:.1%} truncated, "
            f"{row.no_answer:.1%} without an answer, {row.mean_tokens:,.0f} tokens on average"
        )


def print_comparison(report: Mapping[str, Any]) -> None:
    """Print a line for each benchmark of `compare_runs`."""
    for row in report["comparison"].itertuples():
        text = (
            f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]  {row.title}: "
            f"{row.accuracy_a:.3f} -> {row.accuracy_b:.3f}, {row.num_problems} problems"
        )
        # A number that is not equal to itself is NaN: not known.
        if row.p_value == row.p_value:
            text += f", {row.only_a:.0f} lost and {row.only_b:.0f} won, p = {row.p_value:.3g}"
        if row.low <= 0 <= row.high and row.problems_needed == row.problems_needed:
            text += f"; about {row.problems_needed:,.0f} such problems would show a difference"
        echo(text)


def print_training(summary: Mapping[str, Any]) -> None:
    """Print the `log_summary` of a training run."""
    echo(f"{summary['num_steps']} steps over {summary['num_tokens']:,} tokens")
    names = {
        "loss": "training loss, first and last step",
        "global_nll": "held-out global NLL, before and after",
        "local_nll": "held-out local NLL, before and after",
    }
    for key, title in names.items():
        first, last = summary[key]
        if first == first:  # not NaN
            echo(f"  {first:8.4f} {last:8.4f}  {title}")
