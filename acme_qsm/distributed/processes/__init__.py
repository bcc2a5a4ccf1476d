"""How a run's processes are started, watched, restarted and cleared away.

Belongs here: a process's main program, its supervisor, and the reaper of what
is left behind. Light: who supervises loads no JAX, TensorFlow or Acme.
"""
