"""`presence doctor`: what is wrong between here and the room, and what to do about it.

The way of the data:

    probes, trials ──▶ checkup ──▶ Facts ──▶ diagnose ──▶ report
      sockets           steps                  tables      lines, JSON
"""
