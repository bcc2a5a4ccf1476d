"""A run in one process: it acts, learns and evaluates in turn, for S seeds.

Belongs here: the loop, what of a run is each seed's own, and its replay. Does
not: what a run in many processes does as well, which is beside this room.
"""
