"""Where Reverb's servers listen.

A room of its own, since what it does is unusual and must be found: Reverb's
server takes every interface of the machine, has no authentication and shares a
port that is taken. It cannot be told otherwise, so `bind` stands between it and
the C library.
"""
