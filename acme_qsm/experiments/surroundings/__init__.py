"""What surrounds a run's processes: terminal, signals, folders, environment.

Belongs here: what a process does about its standard streams, signals, the
user's home and its environment variables, whatever it runs. Does not: what the
run leaves on disk (`records`).
"""
