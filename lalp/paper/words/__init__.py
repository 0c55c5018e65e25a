"""Word problems: a pretrained student on worded arithmetic whose answers a program checks."""
