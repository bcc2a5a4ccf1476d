"""Diffusion-model policies trained from rewards, Acme style.

What is named here is loaded when first touched. `AcmeBuilder` needs the `acme`
extra; all else runs on JAX alone.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
