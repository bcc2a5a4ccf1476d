"""Diffusion over actions: pure functions of arrays and keys.

Belongs here: noise schedules, forward noising, samplers,
their chains and log-probabilities, reverse samples.
Does not: losses, networks, and anything that knows of observations or rewards.
Index t = 0 is the least noisy denoising step: see `schedules`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
