"""Replay: where transitions are kept and how they get there and back.

Belongs here: how transitions are made of an episode's steps (`n_step`) and
packed (`codec`), drawn of items of several (`items`), and how sampling keeps
pace with inserting (`pacing`), which need JAX alone; and Reverb's part of it:
the adder, the table, the servers and where they listen. Does not: what is
learnt from transitions.
"""
