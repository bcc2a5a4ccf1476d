"""Environments in the form that agents here expect.

Belongs here: what makes tasks by their names, and wrappers. Does not: what acts
in them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
