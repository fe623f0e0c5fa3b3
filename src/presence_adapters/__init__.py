"""All I/O of this project: network drivers for `presence_proto`, a hub server, and a command line."""
