"""Coverage-guided fuzzing of the core. See docs/howto/fuzz-the-protocol.md."""
