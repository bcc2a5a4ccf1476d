"""What a run leaves on disk, and goes on from.

Belongs here: the work directory, checkpoints, logs and curves. Does not: what
happens in the run.
"""
