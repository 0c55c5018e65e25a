"""`python -m lalp.cli` is `lalp`."""

from lalp.cli.app import main

if __name__ == "__main__":
    main()
