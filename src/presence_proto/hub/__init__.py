"""The server side, for many connections at once: a sans-IO core like the clients'.

`hub.py` has the transports and the time, `handshake.py` says who is let in, `phoenix.py` what one Phoenix
connection may say, `plain.py` and `supabase.py` what its two kinds of channels do, `jarvis.py` what one
connection of the Jarvis JSON protocol may say, `jarvis_room.py` who its users are, `topic.py` who is in a
topic and what they are told.
"""

from presence_proto.hub.hub import Hub

__all__ = ["Hub"]
