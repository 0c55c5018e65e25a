"""Recipes: the hyperparameters of fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from transformers import (
    SchedulerType,
)

from lalp.errors import InputError
from lalp.settings import read_keys

# --- recipes --------------------------------------------------------------------------------


@dataclass(frozen=True)
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

    learning_rate: float
    epochs: int
    batch_size: int
    gradient_accumulation: int
    schedule: str
    warmup_ratio: float
    max_length: int
    weight_decay: float
    max_grad_norm: float
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


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its name, or from a YAML file that gives every field of `Recipe`.

    Raises:
        InputError: If there is no such recipe, or the file does not fit `Recipe`.
    """
    if str(name) in RECIPES:
        return RECIPES[str(name)]
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(
            f"recipe {str(name)!r} is not known: give {', '.join(RECIPES)}, or a .yaml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: cannot be read: {error}") from error
    return parse_recipe(text, f"recipe {path}")


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe from YAML text.

    Raises:
        InputError: If a key is unknown, missing or of the wrong type, or a value makes no sense;
            ``where`` begins the message.
    """
    values = read_keys(text, where, Recipe)
    known = get_type_hints(Recipe)
    typed = {key: _typed(where, key, value, known[key]) for key, value in values.items()}
    return check_recipe(Recipe(**typed), where)


def _typed(where: str, key: str, value: Any, expected: type) -> Any:
    """The value as its field's type; YAML reads ``5e-6`` as a text and ``1`` as no float."""
    if expected is float and type(value) in (int, float, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif type(value) is expected:
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise InputError(f"{where}: key {key!r} must be {wanted[expected]}, not {value!r}")


def check_recipe(recipe: Recipe, where: str = "recipe") -> Recipe:
    """The recipe itself, if its values make sense.

    Raises:
        InputError: Naming the first value that does not; ``where`` begins the message.
    """
    schedules = [kind.value for kind in SchedulerType]
    bounds = {
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "epochs": (recipe.epochs >= 1, "at least 1"),
        "batch_size": (recipe.batch_size >= 1, "at least 1"),
        "gradient_accumulation": (recipe.gradient_accumulation >= 1, "at least 1"),
        "schedule": (recipe.schedule in schedules, f"one of {', '.join(schedules)}"),
        "warmup_ratio": (0 <= recipe.warmup_ratio < 1, "at least 0 and below 1"),
        "max_length": (recipe.max_length >= 2, "at least 2"),
        "weight_decay": (recipe.weight_decay >= 0, "at least 0"),
        "max_grad_norm": (recipe.max_grad_norm >= 0, "at least 0"),
    }
    for key, (fits, wanted) in bounds.items():
        value = getattr(recipe, key)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{where}: key {key!r} must be {wanted}, not {value!r}")
    return recipe
