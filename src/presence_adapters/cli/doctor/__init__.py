"""`presence doctor`: check the path from this machine to the room, and explain what fails and how to fix it.

Data flow:

    probes, trials ──▶ checkup ──▶ Facts ──▶ diagnose ──▶ report
      sockets           steps                  tables      lines, JSON
"""
