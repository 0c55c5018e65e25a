"""Speed and memory beside peers (`scoring`), kills, model families, what the sandbox costs."""
