"""Packs transitions into vectors, and unpacks batches of them.

A transition is one float32 vector in replay, [observation, action, reward,
discount, next_observation, extras]: Reverb decodes each column of an item by
itself, so that one column is sampled two to three times as fast as five. Needs
JAX alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.types import are_given
from acme_qsm.types import Transition


class TransitionCodec:
  """Packs transitions into vectors and unpacks batches of them.

  Attributes:
    size: D, the numbers of a packed transition.
    observation_shape: an observation's.
    action_shape: an action's, [A].
    extras_size: those at its end that are its extras.
  """

  def __init__(self, environment_spec: Any, *, has_extras: bool = False):
    """Initialises the codec.

    Args:
      environment_spec: what sets the shapes: its `observations` and `actions`
        have a shape and a dtype.
      has_extras: whether transitions have extras: an action, which is packed as
        the executed one.

    Raises:
      ValueError: if observations are not float32.
    """
    observations = environment_spec.observations
    if np.dtype(observations.dtype) != np.float32:
      raise ValueError(
        "observations must be float32 to be stored in replay, got dtype "
        f"{np.dtype(observations.dtype)}."
      )
    self.observation_shape = tuple(observations.shape)
    self.action_shape = tuple(environment_spec.actions.shape)
    observation_size = int(np.prod(self.observation_shape))
    (action_size,) = self.action_shape
    self.extras_size = action_size if has_extras else 0
    sizes = (observation_size, action_size, 1, 1, observation_size)
    self._ends = np.cumsum((*sizes, self.extras_size))
    self.size = int(self._ends[-1])

  def pack(self, transition: Transition) -> np.ndarray:
    """Packs one transition (without a batch axis) into a float32 vector.

    Args:
      transition: the transition, without extras: what the codec has a place for
        is the executed action at first.

    Returns:
      The vector [D].

    Raises:
      ValueError: if it has extras, which have no place in a vector.
    """
    if are_given(transition.extras):
      raise ValueError(
        "A transition's extras have no place in replay, got "
        f"{transition.extras!r}."
      )
    transition = transition._replace(
      extras=transition.action if self.extras_size else ()
    )
    return np.concatenate(
      [np.ravel(np.asarray(part, np.float32)) for part in transition]
    )

  def unpack(self, packed: jax.Array) -> Transition:
    """Unpacks a batch [B, D] into transitions."""
    observation, action, reward, discount, next_observation, extras = jnp.split(
      packed, self._ends[:-1], axis=1
    )
    shape = (packed.shape[0], *self.observation_shape)
    return Transition(
      observation=observation.reshape(shape),
      action=action,
      reward=reward[:, 0],
      discount=discount[:, 0],
      next_observation=next_observation.reshape(shape),
      extras={"moved_action": extras} if self.extras_size else (),
    )
