"""Settings in YAML that cannot be read, or are made to harm."""

from __future__ import annotations

import pytest
from pydantic.dataclasses import dataclass

from lalp.settings import STRICT, parse_settings
from tests.pools.builders import refused


@dataclass(frozen=True, config=STRICT)
class Sizes:
    width: int
    depth: int = 1


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("width: 2020-99-99", "not valid YAML"),
        (f"width: {'9' * 5000}", "not valid YAML"),
        ("width: !!binary abc=", "s.yaml, line 1"),
        ("width: " + "[" * 5000 + "]" * 5000, "not valid YAML"),
        ("width: !!python/object/apply:os.system [id]", "line 1: not valid YAML"),
        ("width: 1\n? [a, b]\n: 1", "not valid YAML"),
        ("width: *y", "line 1: not valid YAML"),
        ("width: 1\n---\nwidth: 2", "not valid YAML"),
        (f"{LAUGHS}width: *a11", "s.yaml"),
        ("width: &x [*x]", "key 'width' should be a valid integer"),
        (f"width: '{'x' * 100_000}'", "key 'width' should be a valid integer"),
        ("width: .nan", "key 'width' should be a valid integer"),
        ("width: 1\n3: 1", "s.yaml"),
        ("- width: 1", "lines of the form"),
    ],
)
def test_hostile_yaml_is_refused_in_a_line(text, said):
    with refused("s.yaml", said):
        parse_settings(text, "s.yaml", Sizes)


def test_a_value_of_a_billion_parts_is_shown_short():
    text = LAUGHS.replace("a11:", "width:", 1).replace("&a11 ", "")
    with refused("s.yaml"):
        parse_settings(f"x: 1\n{text}", "s.yaml", Sizes)
