"""A temperature that is learnt: of weights by the critics, or of an entropy."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Temperature(NamedTuple):
  """A temperature, as a method's state holds it.

  Attributes:
    log_value: [] its logarithm.
    opt_state: its optimiser's state.
  """

  log_value: jax.Array
  opt_state: optax.OptState

  @property
  def value(self) -> jax.Array:
    """The temperature [], positive."""
    return jnp.exp(self.log_value)


def start(value: float, learning_rate: float) -> Temperature:
  """A temperature before its first step: see `descend`."""
  log_value = jnp.log(jnp.float32(value))
  return Temperature(log_value, optax.adam(learning_rate).init(log_value))


def descend(
  temperature: Temperature,
  loss: Callable[[jax.Array], jax.Array],
  learning_rate: float,
) -> Temperature:
  """Makes a step of Adam down a loss of the temperature's logarithm.

  Args:
    temperature: the temperature.
    loss: its logarithm [] -> loss [].
    learning_rate: Adam's.

  Returns:
    The next temperature.
  """
  gradient = jax.grad(loss)(temperature.log_value)
  change, opt_state = optax.adam(learning_rate).update(
    gradient, temperature.opt_state
  )
  return Temperature(temperature.log_value + jnp.asarray(change), opt_state)
