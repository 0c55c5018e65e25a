"""Recipes: the hyperparameters of fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass
from transformers import SchedulerType

from lalp.errors import InputError
from lalp.settings import STRICT, parse_settings


def _from_text(value: Any) -> Any:
    """A text such as ``5e-6``, which YAML does not read as a number, as the number it names."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # pydantic says what is wrong with it


Number = Annotated[float, BeforeValidator(_from_text)]
Count = Annotated[int, Field(ge=1)]
Schedule = Literal[*(kind.value for kind in SchedulerType)]


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Hyperparameters of one fine-tuning run.

    Attributes:
        learning_rate: At its highest.
        epochs: Passes over the data.
        batch_size: Examples per device and forward pass.
        gradient_accumulation: Forward passes per optimizer step.
        schedule: Of the learning rate: ``cosine``, ``linear``, ``constant``, ...
        warmup_ratio: Share of the steps in which the rate rises from 0.
        max_length: Tokens per example; longer ones are cut.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are scaled down to this norm; 0: never.
        bf16: Compute in bfloat16 on a GPU, weights kept in float32. A CPU computes in float32.
        gradient_checkpointing: Compute activations twice to save memory.
    """

    learning_rate: Annotated[Number, Field(gt=0)]
    epochs: Count
    batch_size: Count
    gradient_accumulation: Count
    schedule: Schedule
    warmup_ratio: Annotated[Number, Field(ge=0, lt=1)]
    max_length: Annotated[int, Field(ge=2)]
    weight_decay: Annotated[Number, Field(ge=0)]
    max_grad_norm: Annotated[Number, Field(ge=0)]
    bf16: bool
    gradient_checkpointing: bool


# Table 6 gives batch 1/2, accumulation 8, epochs 10/15, warmup 0 and bfloat16, without saying which
# of two values is which student's, and "/" for the learning rate. Here the 7B and 8B students take
# batch 2 and 10 epochs, the 32B student batch 1 and 15 epochs as LIMO's does. Learning rate, cosine
# schedule and cutoff are LIMO's; weight decay and clipping, which nobody states, LLaMA-Factory's
# defaults. On the paper's four GPUs a step holds 64 (or 32) examples.
_PAPER = Recipe(
    learning_rate=5e-6,
    epochs=10,
    batch_size=2,
    gradient_accumulation=8,
    schedule="cosine",
    warmup_ratio=0.0,
    max_length=16384,
    weight_decay=0.0,
    max_grad_norm=1.0,
    bf16=True,
    gradient_checkpointing=True,
)
RECIPES = {
    "paper": _PAPER,
    "paper-32b": replace(_PAPER, epochs=15, batch_size=1),
    # Sec. C.9 gives epochs and learning rate only.
    "terciles": replace(_PAPER, epochs=5, learning_rate=1e-5),
}


def load_recipe(name: str | Path, **changes: Any) -> Recipe:
    """A recipe by its name, or from a YAML file that gives every field of `Recipe`.

    Args:
        name: A name in ``RECIPES``, or a file.
        changes: Fields to take instead of the recipe's; None leaves a field as it is.

    Raises:
        InputError: If there is no such recipe, or the file or a change does not fit `Recipe`.

    Example:
        >>> load_recipe("paper-32b", epochs=1).epochs
        1
    """
    recipe = RECIPES.get(str(name)) or _read_recipe(Path(name))
    try:
        return replace(recipe, **{key: v for key, v in changes.items() if v is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        wrong = fault["msg"].removeprefix("Input ")
        raise InputError(
            f"recipe: key {fault['loc'][0]!r} {wrong}, not {fault['input']!r}"
        ) from None


def _read_recipe(path: Path) -> Recipe:
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(
            f"recipe {str(path)!r} is not known: give {', '.join(RECIPES)}, or a .yaml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: cannot be read: {error}") from error
    return parse_settings(text, f"recipe {path}", Recipe)
