"""Networks as pure functions, made with Haiku.

Belongs here: layers, the denoiser, critics, their configuration, and what makes
them for an environment. Does not: losses, optimisers, and what a method does
with them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
