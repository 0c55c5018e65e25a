"""Settings of the site (`make site`): Sphinx, with the checkout's root as its source folder.

So every link of a page or a notebook leads to the same file here and on the site.
"""

from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "lalp"
author = "the authors of lalp"
html_title = "lalp"
language = "en"
root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "dist", "figures", "lalp", "tests", "benchmarks", "**/.ipynb_*"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "lalp.paper.site.figures",
    "lalp.paper.site.links",
    "lalp.paper.site.notebooks",
    "lalp.paper.site.reference",
]

# --- pages and notebooks ------------------------------------------------------------------------

# The notebooks are shown as they were committed, and never run here.
nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
# The paper has figures of its own, so those of the site are called otherwise.
numfig = True
numfig_format = {"figure": "Picture %s"}

# --- reference ----------------------------------------------------------------------------------

default_role = "py:obj"
add_module_names = False
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints_format = "short"
# As they are written: what Python makes of a default may be no Python.
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
autosummary_generate = False
napoleon_numpy_docstring = False

# --- appearance ---------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Two hundred pages of source code do not repeat the list of all pages, which takes long to draw.
html_sidebars = {"_modules/**": ["navbar-logo.html", "search-button-field.html"]}
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
templates_path = ["_templates"]
# The pages lie in folders, as their sources do: the first page leads there.
html_additional_pages = {"index": "first.html"}
html_css_files = ["style.css"]
html_js_files = ["search.js"]
html_show_copyright = False
html_last_updated_fmt = None
# Formulas without a network: MathJax in one file, which needs neither fonts nor others.
mathjax_path = "tex-svg-full.js"
_MATHJAX = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline")
html_static_path.append(str(Path(str(_MATHJAX), "static", "mathjax", mathjax_path)))
mathjax3_config = {"options": {"enableMenu": False}}
