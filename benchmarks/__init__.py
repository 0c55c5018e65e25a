"""Speed and memory beside peers (`scoring`), and clean copies of executed notebooks (`refresh`)."""
