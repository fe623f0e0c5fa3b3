"""All I/O of the project: drivers for the cores of `presence_proto`, a hub server, and a command line."""
