"""All random numbers of a run: one seed for each purpose, from the run's own.

Belongs here: every purpose that a run draws random numbers for, so that no two
of them, in one process or in many, ever meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def describe_generator() -> dict[str, Any]:
  """What JAX makes random numbers by, of which a seed's are no others'.

  Returns:
    Its settings by their names, as its configuration or, in capitals, its
    environment variables have them; for JSON.
  """
  settings = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
  }
  # Where a release does not have one any more, nothing else can be.
  return {
    name: getattr(jax.config, name, default)
    for name, default in settings.items()
  }


@dataclasses.dataclass(frozen=True)
class Seeds:
  """The seeds of a run.

  What came before in a run is part of a purpose (`actor_steps`): a run that
  goes on must not see the same random numbers again, which would not be new
  experience. So are an actor's number and how often it was started again.

  Attributes:
    seed: the run's, in 0 .. 2^32 - 1.
  """

  seed: int

  def learner_key(self) -> jax.Array:
    """Key of the parameters and of training; a checkpoint holds what follows.

    Returns:
      A PRNG key.
    """
    return self._key("learner")

  def actor_key(
    self, actor_steps: int, index: int = 0, restarts: int = 0
  ) -> jax.Array:
    """Key of an actor's actions.

    Args:
      actor_steps: environment steps that the run had made.
      index: the actor's number.
      restarts: how often it was started again.

    Returns:
      A PRNG key.
    """
    return self._key("actor", actor_steps, index, restarts)

  def environment(
    self,
    actor_steps: int,
    index: int = 0,
    restarts: int = 0,
    number: int = 0,
  ) -> int:
    """Seed of an actor's environment.

    Args:
      actor_steps: environment steps that the run had made.
      index: the actor's number.
      restarts: how often it was started again.
      number: how many environments it had before, since its start.

    Returns:
      A seed in 0 .. 2^32 - 1.
    """
    return self._seed("environment", actor_steps, index, restarts, number)

  def replay(self) -> int:
    """Seed of the draws from replay; a checkpoint holds what follows.

    Returns:
      A seed in 0 .. 2^32 - 1.
    """
    return self._seed("replay")

  def evaluator_key(self, actor_steps: int, restarts: int = 0) -> jax.Array:
    """Key of an evaluator's actions.

    Args:
      actor_steps: environment steps that the run had made.
      restarts: how often the evaluator was started again.

    Returns:
      A PRNG key.
    """
    return self._key("evaluator", actor_steps, restarts)

  def evaluation_environment(self, actor_steps: int) -> int:
    """Seed of the environment of one evaluation.

    Args:
      actor_steps: environment steps that are evaluated.

    Returns:
      A seed in 0 .. 2^32 - 1.
    """
    return self._seed("evaluation environment", actor_steps)

  def _seed(self, name: str, *numbers: int) -> int:
    return int(self._sequence(name, numbers).generate_state(1)[0])

  def _key(self, name: str, *numbers: int) -> jax.Array:
    first, second = self._sequence(name, numbers).generate_state(2)
    # 64 bits, whatever kind of keys JAX makes.
    return jax.random.fold_in(jax.random.PRNGKey(first), second)

  def _sequence(
    self, name: str, numbers: tuple[int, ...]
  ) -> np.random.SeedSequence:
    return np.random.SeedSequence(self.seed, spawn_key=spawn_key(name, numbers))


def spawn_key(name: str, numbers: Sequence[int]) -> tuple[int, ...]:
  """Turns a purpose into words of 32 bits; no two purposes have the same.

  As a part of the entropy itself, numbers would not do: there, numpy takes
  [1], [1, 0] and [1, 0, 0] for one.

  Args:
    name: the purpose's name.
    numbers: what else tells it from others, each in 0 .. 2^64 - 1.

  Returns:
    The name's length and letters, and two words for each number.
  """
  letters = name.encode()
  words = [word for n in numbers for word in divmod(n, 2**32)]
  return (len(letters), *letters, *words)
