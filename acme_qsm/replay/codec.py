"""Packs transitions into vectors, and unpacks batches of them.

A transition is one float32 vector in replay, [observation, action, reward,
discount, next_observation, extras]: Reverb decodes each column of an item by
itself, so that one column is sampled two to three times as fast as five. Needs
JAX alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm.replay.validation import require_extras
from acme_qsm.types import Transition

# Not every int32 is a float32 number. Its upper and its lower 16 bits are, and
# are stored as two. Its 32 bits, read as one float32, would often be a NaN, of
# which replay takes none.
_SPLIT = np.dtype(np.int32)


class TransitionCodec:
  """Packs transitions into vectors and unpacks batches of them.

  Attributes:
    size: D, the numbers of a packed transition.
    observation_shape: an observation's.
    action_shape: an action's, [A].
    extras_spec: the extras' specs by name, in the order in which a packed
      transition ends with them.
  """

  def __init__(
    self, environment_spec: Any, extras_spec: Mapping[str, Any] = {}
  ):
    """Initialises the codec.

    Args:
      environment_spec: what sets the shapes: its `observations` and `actions`
        have a shape and a dtype.
      extras_spec: by name, what has the shape and the dtype of one step's
        extra; {} for transitions without extras.

    Raises:
      ValueError: if observations are not float32, or an extra is of a dtype
        that replay cannot hold exactly: neither int32 nor one whose values are
        float32 numbers.
    """
    observations = environment_spec.observations
    if np.dtype(observations.dtype) != np.float32:
      raise ValueError(
        "observations must be float32 to be stored in replay, got dtype "
        f"{np.dtype(observations.dtype)}."
      )
    for name, spec in extras_spec.items():
      if spec.dtype != _SPLIT and not np.can_cast(spec.dtype, np.float32):
        raise ValueError(
          f"The extra {name!r} must be float32 or int32 to be stored in "
          f"replay, got dtype {np.dtype(spec.dtype)}."
        )
    self.observation_shape = tuple(observations.shape)
    self.action_shape = tuple(environment_spec.actions.shape)
    self.extras_spec = {name: extras_spec[name] for name in sorted(extras_spec)}
    observation_size = int(np.prod(self.observation_shape))
    (action_size,) = self.action_shape
    sizes = [observation_size, action_size, 1, 1, observation_size]
    for spec in self.extras_spec.values():
      size = int(np.prod(spec.shape))
      sizes += [size, size] if spec.dtype == _SPLIT else [size]
    self._ends = np.cumsum(sizes)
    self.size = int(self._ends[-1])

  def describe_extras(self) -> list[str]:
    """What the extras at a packed transition's end are, for people to read."""
    return [
      f"{name}: {np.dtype(spec.dtype)} {list(spec.shape)}"
      for name, spec in self.extras_spec.items()
    ]

  def pack(self, transition: Transition) -> np.ndarray:
    """Packs one transition (without a batch axis) into a float32 vector.

    Args:
      transition: the transition; its extras are those of the spec.

    Returns:
      The vector [D].

    Raises:
      ValueError: if it lacks extras of the spec, or has others.
    """
    given = require_extras(transition.extras, self.extras_spec)
    extras = {name: np.asarray(extra) for name, extra in given.items()}
    parts = [*transition[:5], *self._split_extras(extras, 0)]
    return np.concatenate(
      [np.ravel(np.asarray(part, np.float32)) for part in parts]
    )

  def pack_extras(self, extras: Mapping[str, jax.Array]) -> jax.Array:
    """Packs a batch of extras as `pack` does those of one transition.

    Args:
      extras: [B, ...] by name, those of the spec; there is at least one.

    Returns:
      [B, E] the ends of packed transitions.
    """
    parts = self._split_extras(extras, 1)
    return jnp.concatenate([part.astype(np.float32) for part in parts], axis=1)

  def unpack(self, packed: jax.Array) -> Transition:
    """Unpacks a batch [B, D] into transitions.

    Args:
      packed: the batch.

    Returns:
      The transitions.

    Raises:
      ValueError: if they are of another size, as with other extras.
    """
    if packed.shape[1] != self.size:
      raise ValueError(
        f"Transitions from replay have {packed.shape[1]} numbers instead of "
        f"{self.size}, with extras {self.describe_extras()}: the learner, the "
        "adder and replay must be made for the same policy."
      )
    observation, action, reward, discount, next_observation, *extras = (
      jnp.split(packed, self._ends[:-1], axis=1)
    )
    shape = (packed.shape[0], *self.observation_shape)
    return Transition(
      observation=observation.reshape(shape),
      action=action,
      reward=reward[:, 0],
      discount=discount[:, 0],
      next_observation=next_observation.reshape(shape),
      extras=self._join_extras(iter(extras)) if self.extras_spec else (),
    )

  def _split_extras(self, extras: Any, num_batch_axes: int) -> list[Any]:
    """The arrays of a row [..., k] that hold the extras."""
    parts = []
    for name, spec in self.extras_spec.items():
      extra = extras[name]
      extra = extra.reshape(*extra.shape[:num_batch_axes], -1)
      is_split = spec.dtype == _SPLIT
      parts += [extra >> 16, extra & 0xFFFF] if is_split else [extra]
    return parts

  def _join_extras(self, parts: Any) -> dict[str, jax.Array]:
    """The extras by name of the arrays [B, k] that hold them."""
    extras = {}
    for name, spec in self.extras_spec.items():
      extra = next(parts).astype(spec.dtype)
      if spec.dtype == _SPLIT:
        extra = (extra << 16) | next(parts).astype(spec.dtype)
      extras[name] = extra.reshape(-1, *spec.shape)
    return extras
