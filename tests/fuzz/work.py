"""Run many cases: sound inputs once, undamaged lines once each, then the cases by few workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.cases import COMMANDS, Case, draw_case
from tests.fuzz.harness import Outcome, faults, run

_NOTHING = ("", "command line", "nothing", "same")


@dataclass(frozen=True)
class Result:
    """What came of one case."""

    number: int
    kind: str
    command: str
    damage: str
    line: str
    verdict: str  # refused, read or failed
    faults: tuple[str, ...]
    seconds: float
    folder: str


def import_commands(light: bool) -> None:
    """Load what the commands import late, so that a fork has it."""
    import lalp.cli.app
    import lalp.evaluation.accuracy
    import lalp.evaluation.evaluate
    import lalp.scoring.heat_map
    import lalp.scoring.run
    import lalp.selection.matched
    import lalp.selection.ranking

    if light:
        return
    import openai  # noqa: F401
    import sentence_transformers  # noqa: F401

    import lalp.scoring.estimate
    import lalp.steps.llm
    import lalp.training.llamafactory
    import lalp.training.trainer  # noqa: F401


def line_case(line: str) -> Case:
    """A command line with nothing damaged."""
    return Case(-1, tuple(line.split()), *_NOTHING, line)


def make_baselines(folder: Path, lines: Sequence[str]) -> dict[str, Outcome]:
    """Run each line on sound inputs; its stores are kept for damages of stores."""
    found = {}
    for line in lines:
        name = sha256(line.encode()).hexdigest()[:12]
        place = folder / f"line-{name}"
        outcome = run(line_case(line), folder / "good", place, lambda: None)
        wrong = faults(line_case(line), outcome, None)
        # The server that the language model's line names does not answer.
        if (wrong or outcome.code) and "--llm-url" not in line:
            raise AssertionError(f"lalp {line}: {wrong} {outcome.err}")
        found[line] = outcome
        stored = folder / "stores" / name
        shutil.copytree(place / "build", stored)
        shutil.rmtree(place)
    return found


def make_inputs(folder: Path, light: bool) -> None:
    """Make the sound inputs, in a process of its own: this one stays without threads."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _make_inputs(folder, light)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise AssertionError("the sound inputs could not be made")


def _make_inputs(folder: Path, light: bool) -> None:
    import sys

    from lalp.cli import app
    from tests.fuzz.good import make_good

    good = folder / "good"
    os.environ["LALP_CACHE"] = str(good / "build")

    def lalp(*words: object) -> None:
        os.chdir(good)
        sys.argv = ["lalp", *map(str, words)]
        try:
            app.main()
        except SystemExit as stop:
            if stop.code:
                raise AssertionError(f"lalp {words}: {stop.code}") from None

    make_good(good, lalp, light=light)


def run_case(
    number: int, seed: int, folder: Path, good: dict[str, Outcome], real_every: int, light: bool
) -> Result:
    """Draw, run and judge one case; its folder stays only if it failed."""
    case = draw_case(seed, number, light=light)
    place = folder / f"case{number}"
    real = bool(real_every) and number % real_every == 0
    prepare = partial(case.prepare, seed)
    try:
        outcome = run(case, folder / "good", place, prepare, real=real)
        wrong = faults(case, outcome, good.get(case.base))
    except Exception as error:  # the other cases are still to run
        outcome = Outcome(1, "", "", 0.0)
        wrong = [f"the harness itself failed: {error!r}"]
    if not wrong:
        shutil.rmtree(place)
        for name in ("out", "err"):
            Path(f"{place}.{name}").unlink()
    verdict = "failed" if wrong else "refused" if outcome.code == 2 else "read"
    line = " ".join(ascii(word)[:80] if not word.isascii() else word[:80] for word in case.words)
    damage = f"{case.damage} ({case.file})" if case.file else case.damage
    result = Result(
        number=number,
        kind=case.kind,
        command=case.command,
        damage=damage,
        line=line,
        verdict=verdict,
        faults=tuple(wrong),
        seconds=outcome.seconds,
        folder=str(place),
    )
    if wrong:  # all that is needed to see it again
        again = {"seed": seed, "words": case.words, "expected": case.expected} | vars(result)
        Path(f"{place}.json").write_text(json.dumps(again, indent=1))
    return result


def run_all(
    seed: int,
    numbers: Sequence[int],
    folder: Path,
    jobs: int,
    *,
    real_every: int = 0,
    light: bool = False,
) -> list[Result]:
    """Run the cases of the given numbers below ``folder``."""
    import_commands(light)
    folder.mkdir(parents=True, exist_ok=True)
    make_inputs(folder, light)
    lines = {draw_case(seed, number, light=light).base for number in numbers}
    good = make_baselines(folder, [line for line, *_ in COMMANDS if line in lines])
    one = partial(run_case, seed=seed, folder=folder, good=good, real_every=real_every, light=light)
    if jobs < 2:
        return [one(number) for number in numbers]
    # Forked, and so with everything imported; each has one thread, and may fork again.
    with get_context("fork").Pool(jobs, initializer=_alone) as pool:
        return list(pool.imap(one, numbers, chunksize=4))


def _alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
