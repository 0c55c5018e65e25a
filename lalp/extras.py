"""Packages that only some commands need: which extra of `lalp` installs each."""

from __future__ import annotations

from importlib.util import find_spec

from lalp.errors import InputError

# The modules of each extra that are imported by name, the one that lacks first; pyproject.toml has
# the same extras with the versions.
EXTRAS = {
    "train": ("trl", "datasets"),
    "eval": ("math_verify",),
    "semantic": ("sentence_transformers",),
    "plots": ("seaborn",),
    "llm": ("openai",),
    "datasets": ("datasets",),
    "vllm": ("vllm",),
    "scale": ("snakemake", "snakemake_executor_plugin_slurm"),
    "cluster": ("ray", "aiohttp"),
}


def require(extra: str, what: str) -> None:
    """Refuse, before anything is computed, what an extra that is not installed is needed for.

    Example:
        >>> require("plots", "a plot")
    """
    for module in EXTRAS[extra]:
        if not is_installed(module):
            raise InputError(f"{what}: needs {module}: pip install 'lalp[{extra}]'")


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported, for that takes seconds."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
