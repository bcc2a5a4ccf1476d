"""Replay: where transitions are kept and how they get there and back.

Belongs here: how transitions are made of an episode's steps (`n_step`) that
hold what they must (`validation`), are packed (`codec`), written (`adder`) and
drawn of items of several (`items`), how sampling keeps pace with inserting
(`pacing`), and the replay of a run in one process (`embedded`, and
`memory_limit`, which tells whether it fits); they need JAX alone. And Reverb's
part of it: its adder, the table, the servers and where they listen. Does not:
what is learnt from transitions.
"""
