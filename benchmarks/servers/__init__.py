"""The servers of the fan-out. Each is a process of its own, which talks over its stdin and stdout.

It prints `{"port": ...}`. Then it takes a line of JSON, and answers with one:

- `{"texts": [...], "together": n}`: say these to all clients, `n` in one moment. `{"said": ...}` comes when
  all are handed over, and need not have been written.
- `{"cpu": true}`: the answer has `cpu`, seconds of the process, all threads, since it began to say them.
"""
