"""Losses: pure functions of arrays, a file per theme.

Each returns one value per example [B]; the caller averages, weights or masks.
Belongs here: what a gradient is taken of, and the weights in it. Does not:
networks, sampling, keys.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
