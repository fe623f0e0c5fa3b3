"""All the I/O there is: drivers that run the cores of `presence_proto`, a server, a command line."""
