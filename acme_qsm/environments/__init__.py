"""Environments in the form that agents here expect.

Belongs here: what makes tasks by their names, and wrappers. Does not: what acts
in them.
"""

from acme_qsm import needs

__getattr__, __dir__, __all__ = needs.attach_stub(__name__, __file__)
