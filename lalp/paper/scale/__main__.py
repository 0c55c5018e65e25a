"""Plan, try out and run the paper's pipeline: `python -m lalp.paper.scale --help`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from lalp.cli.options import AsJson, run
from lalp.cli.printing import print_result, say
from lalp.errors import InputError
from lalp.paper.scale.commands import PlanName, app

if TYPE_CHECKING:
    from lalp.paper.scale.plan import Plan
    from lalp.paper.scale.run import Report
    from lalp.paper.scale.stages import Stage

StagePatterns = Annotated[
    list[str] | None,
    typer.Option("--stage", help="A name, a pattern like 'train-*', or a kind; repeatable."),
]


def _chosen(profile: str, patterns: list[str] | None) -> tuple[Plan, str, list[Stage]]:
    """The plan of a profile, the folder of its run, and the stages that the patterns choose."""
    from lalp.paper.scale.plan import load_plan, run_folder
    from lalp.paper.scale.run import choose_stages
    from lalp.paper.scale.stages import Place, make_stages

    plan, root = load_plan(profile), run_folder("pipeline", profile)
    stages = make_stages(plan, Place(root), profile)
    return plan, root, choose_stages(stages, patterns or [])


@app.command("plan")
def plan_(
    profile: PlanName = "paper", stage: StagePatterns = None, as_json: AsJson = False
) -> None:
    """Say of every stage what it computes, needs and runs, before anything runs."""
    from lalp.paper.scale import costs as scale_costs

    plan, _, stages = _chosen(profile, stage)
    costs = scale_costs.plan_costs(plan, stages)
    records = [scale_costs.as_record(*pair) for pair in zip(stages, costs, strict=True)]
    result = {"stages": records, "totals": scale_costs.add_up(costs)}
    print_result(result, as_json, lambda: typer.echo(scale_costs.plan_text(stages, costs)))


@app.command("run")
def run_(
    profile: PlanName = "paper",
    stage: StagePatterns = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take outputs made elsewhere; needs --stage.")
    ] = False,
) -> None:
    """Run the stages that are not done yet; a second run goes on where one stopped."""
    from lalp.paper.scale.run import adopt_stage, run_stages

    _, root, stages = _chosen(profile, stage)
    if not adopt:
        run_stages(stages, root, on_report=_print_report)
        return
    if not stage:
        raise InputError("--adopt takes the outputs of named stages: add --stage")
    for each in stages:
        _print_report(adopt_stage(each, root))


@app.command("dryrun")
def dryrun_(profile: PlanName = "paper") -> None:
    """Run every stage in small, with tiny models and toy problems, on the CPU."""
    from lalp.paper.scale.dryrun import dry_run
    from lalp.paper.scale.plan import run_folder

    began = time.monotonic()
    typer.echo(f"{'stage':<68} {'seconds':>8} {'run as':<7}  outputs checked")
    reports = dry_run(
        profile,
        run_folder("dryrun", profile),
        say=say,
        on_report=lambda report, fresh: _print_report(report, "process" if fresh else ""),
    )
    typer.echo(f"{len(reports)} stages passed in {time.monotonic() - began:.0f} s")
    typer.echo(
        "Unlike the real run: toy problems, tiny models, transformers instead of vLLM, two CPU "
        "processes over gloo, and one process for all but the first stage of each kind."
    )


def _print_report(report: Report, how: str = "") -> None:
    seconds = "before" if report.state == "done before" else f"{report.seconds:.1f}"
    outputs = "; ".join(report.outputs) + ("  (nothing to do)" if "nothing" in report.state else "")
    typer.echo(f"{report.stage.name:<68} {seconds:>8} {how:<7}  {outputs}")


if __name__ == "__main__":
    run(app)
