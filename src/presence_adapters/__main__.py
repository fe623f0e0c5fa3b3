"""`python -m presence_adapters` is `presence`."""

from presence_adapters.cli import main

if __name__ == "__main__":
    main()
