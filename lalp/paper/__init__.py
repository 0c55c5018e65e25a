"""The replication: what only the notebooks and the paper's own scale need.

Whatever it and the tool compute meanwhile goes to ``build`` of the checkout, unless ``LALP_CACHE``
is set: `lalp.files.cache_dir` says where.
"""

import os
import tomllib
from pathlib import Path


def root_dir() -> Path:
    """The checkout: the nearest folder, from the current one upwards, of the project lalp.

    So notebooks and commands agree, wherever in it they run. Elsewhere, the current folder.
    """
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def _is_project(folder: Path) -> bool:
    """Whether the folder's ``pyproject.toml`` is this project's."""
    try:
        with (folder / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, ValueError):
        return False
    return isinstance(project, dict) and project.get("name") == "lalp"


if _is_project(root_dir()):
    os.environ.setdefault("LALP_CACHE", str(root_dir() / "build"))
