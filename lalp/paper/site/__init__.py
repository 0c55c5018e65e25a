"""What the site (`make site`) adds to Sphinx: figures, notebooks, the reference, links to files."""
