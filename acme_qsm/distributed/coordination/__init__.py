"""How the processes of a run agree: calls, counts, orders, and the end.

Belongs here: the coordinator, each process's link to it, and the calls between
processes. Does not: what a process does beside that.
"""
