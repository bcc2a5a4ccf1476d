"""What all methods share: configuration, the actor-critic step, acting.

Belongs here: pieces that two methods or more need, as pure functions that can
be called by themselves. Does not: a method's name, or an option that only one
method reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
