"""`python -m presence_adapters` runs the `presence` command."""

from presence_adapters.cli import main

if __name__ == "__main__":
    main()
