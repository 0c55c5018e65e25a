"""Settings read from YAML, with errors that name the key."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_origin

import yaml

from lalp.errors import InputError


def read_keys(text: str, where: str, record: type) -> dict[str, Any]:
    """Read YAML that gives every field of a dataclass, and nothing else; values are not checked.

    Raises:
        InputError: If it is no such text, or a key is unknown or missing; ``where`` begins the
            message.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected lines of the form `key: value`")
    known = [field.name for field in fields(record)]
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}: known are {', '.join(known)}")
    for key in known:
        if key not in values:
            raise InputError(f"{where}: key {key!r} is missing: add it")
    return {key: values[key] for key in known}


def _check_type(where: str, key: str, value: Any, expected: Any) -> None:
    if get_origin(expected) is list:
        (item,) = get_args(expected)
        fits = isinstance(value, list) and value and all(type(v) is item for v in value)
        wanted = f"a list of {item.__name__} values"
    else:
        fits = type(value) is expected and not (expected in (int, float) and value <= 0)
        wanted = {int: "a whole number from 1", float: "a number above 0"}.get(
            expected, f"a {expected.__name__} value"
        )
    if not fits:
        raise InputError(f"{where}: key {key!r} must be {wanted}, not {value!r}")
