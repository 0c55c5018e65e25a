"""Recipes: the hyperparameters of fine-tuning; ``recipes.yaml`` has the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass
from transformers import SchedulerType

from lalp.errors import InputError, did_you_mean
from lalp.files import check_file, not_found, read_data
from lalp.settings import STRICT, parse_settings


def _from_text(value: Any) -> Any:
    """The number that a text such as ``5e-6`` names; YAML does not read it as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # pydantic says what is wrong with it


Number = Annotated[float, BeforeValidator(_from_text)]
# More must be a mistake, and would fill the memory with the order of examples.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Schedule = Literal[*(kind.value for kind in SchedulerType)]


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Hyperparameters of one fine-tuning run."""

    learning_rate: Annotated[Number, Field(gt=0)]  # at its highest
    epochs: Count  # passes over the data
    batch_size: Count  # examples per device and forward pass
    gradient_accumulation: Count  # forward passes per optimizer step
    schedule: Schedule  # of the learning rate: cosine, linear, constant, ...
    warmup_ratio: Annotated[Number, Field(ge=0, lt=1)]  # share of steps with a rising rate
    # Tokens per example; longer ones are cut.
    max_length: Annotated[int, Field(ge=2, le=1_000_000_000)]
    weight_decay: Annotated[Number, Field(ge=0)]  # AdamW's
    max_grad_norm: Annotated[Number, Field(ge=0)]  # gradients are scaled down to it; 0: never
    # Compute in bfloat16, with weights in float32; a CPU without matrix units for it takes float32.
    bf16: bool
    gradient_checkpointing: bool  # compute activations twice to save memory
    # Put the examples of a forward pass end to end in one row, without padding; none sees another.
    packing: bool = False


RECIPES = {name: Recipe(**values) for name, values in read_data("training/recipes.yaml").items()}


def load_recipe(name: str | Path, **changes: Any) -> Recipe:
    """A recipe by its name in `RECIPES`, or from a YAML file with the fields of `Recipe`.

    ``changes`` are fields to replace; None leaves a field as it is. InputError if there is no such
    recipe, or the file or a change does not fit `Recipe`.

    Example:
        >>> load_recipe("paper-32b", epochs=1).epochs
        1
    """
    recipe, path = RECIPES.get(str(name)), Path(name)
    if recipe is None:
        if path.suffix not in {".yaml", ".yml"}:
            known = did_you_mean(path, RECIPES)
            raise InputError(f"recipe {str(path)!r} is not known: {known}; or give a .yaml file")
        check_file(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise InputError(f"recipe {path}: {not_found(path)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe {path}: cannot be read: {error}") from error
        recipe = parse_settings(text, f"recipe {path}", Recipe)
    try:
        return replace(recipe, **{key: v for key, v in changes.items() if v is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        wrong = f"{fault['msg'].removeprefix('Input ')}, not {fault['input']!r}"
        raise InputError(f"recipe: key {fault['loc'][0]!r} {wrong}") from None
