"""Replay: where transitions are kept and how they get there and back.

Belongs here: Reverb's tables and servers, the adder, how transitions are packed
and how sampling keeps pace with inserting. Does not: what is learnt from them.
"""
