"""Speed and memory beside peers (`scoring`); notebooks made clean (`refresh`), static (`site`)."""
