"""Experiments: an agent in an environment, with logs, checkpoints, curves."""

from acme_qsm import needs

__getattr__, __dir__, __all__ = needs.attach_stub(__name__, __file__)
