"""The replication: what only the notebooks and the paper's own scale need.

What it computes, and what the tool computes for it, goes to ``build`` in the checkout, unless
``LALP_CACHE`` is set (see `lalp.files.cache_dir`).
"""

import os
import tomllib
from pathlib import Path


def root_dir() -> Path:
    """The checkout: the nearest folder of the project lalp, from the current one upwards.

    So notebooks and commands agree wherever in it they run. Outside it, this is the current folder.
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
