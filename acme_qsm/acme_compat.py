"""Lets dm-acme 0.4.0 run beside today's JAX and Reverb, quietly and fast.

Import this module before anything of Acme. Every name is set only where it is
missing, and means what it meant when dm-acme 0.4.0 was released.
"""

import functools
import os

import gym_notices.notices
import jax
import jax.numpy as jnp

# TensorFlow, which Reverb reads data through, tells on import which processor
# instructions it was built without.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Gym, which Acme's wrappers import, prints that it is no longer maintained.
gym_notices.notices.notices = {}

import reverb  # noqa: E402


def _set_missing(owner: object, name: str, value: object) -> None:
  # Not `hasattr`: JAX's deprecation shims raise or warn there.
  if name not in vars(owner):
    setattr(owner, name, value)


def _patch_jax() -> None:
  # acme.jax.{networks,utils,variable_utils} annotate with these types.
  _set_missing(jax, "xla", type("xla", (), {}))
  xla = vars(jax)["xla"]
  _set_missing(xla, "Device", jax.Device)
  _set_missing(xla, "DeviceArray", jax.Array)
  _set_missing(jnp, "DeviceArray", jax.Array)
  # Moved to jax.tree in JAX 0.4.25 and removed from the top in 0.6.
  for name in ("flatten", "leaves", "map", "structure", "transpose"):
    _set_missing(jax, f"tree_{name}", getattr(jax.tree, name))
  _set_missing(jax, "tree_unflatten", jax.tree.unflatten)
  # Replaced by tree_map, which takes several trees, in JAX 0.3.16.
  _set_missing(jax, "tree_multimap", jax.tree.map)
  _set_missing(jax.tree_util, "tree_multimap", jax.tree.map)


def _patch_reverb() -> None:
  # Reverb 0.8 dropped the argument that Acme's adders pass.
  trajectory_writer = reverb.Client.trajectory_writer
  if hasattr(trajectory_writer, "__wrapped__"):
    return

  @functools.wraps(trajectory_writer)
  def without_timeout(self, *args, get_signature_timeout_ms=None, **kwargs):
    del get_signature_timeout_ms
    return trajectory_writer(self, *args, **kwargs)

  reverb.Client.trajectory_writer = without_timeout


_patch_jax()
_patch_reverb()
