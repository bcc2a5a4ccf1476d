"""JAX and what comes with it, loaded when first touched.

Importing them takes longer than all that a command line needs to help, or to
refuse a flag. So the modules that define configurations, and those that they
are defined with, take them from here; their annotations, which touch them too,
are left unevaluated (`from __future__ import annotations`).
"""

import importlib
import types
import typing
from typing import Any

__all__ = ["chex", "jax", "jnp", "optax"]


class _Deferred(types.ModuleType):
  """Stands for a module, and loads it when asked for what is in it."""

  def __getattr__(self, name: str) -> Any:
    return getattr(importlib.import_module(self.__name__), name)


if typing.TYPE_CHECKING:
  import chex
  import jax
  import jax.numpy as jnp
  import optax
else:
  chex = _Deferred("chex")
  jax = _Deferred("jax")
  jnp = _Deferred("jax.numpy")
  optax = _Deferred("optax")
