"""Who takes part. Each contestant is a process of its own, which talks over its stdin and stdout.

A line of JSON in, a line of JSON out:

- `{"load": path, "topics": [...], "untimed": n}`: begin anew in these topics, take the texts of that file,
  one a line, and be where the first `n` lead to.
- `{"run": true}`: take the rest. The answer has `cpu` (seconds of the process, all threads), `events` (what
  an application was told) and `digest` (of the roster, see `workloads.digest`).
"""
