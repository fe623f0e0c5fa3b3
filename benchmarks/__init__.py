"""How fast presence is handled here, next to the official clients. See `python -m benchmarks --help`."""
