"""How a run's processes are started, watched, restarted and cleared away.

Belongs here: a process's main program, its supervisor, and the reaper of what
is left behind. These modules load JAX, TensorFlow and Acme only when they are
told to.
"""
