"""The parts of an agent for one environment, as its builder makes them."""

import functools
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.config import ExperimentConfig


class AgentParts:
  """Makes an agent's parts; its networks and policies once.

  Attributes:
    environment_spec: the environment's spec.
  """

  def __init__(self, experiment: ExperimentConfig, environment_spec: Any):
    """Initialises the maker; makes nothing.

    Args:
      experiment: has the builder and the networks' factory.
      environment_spec: the environment's spec.
    """
    self._builder = experiment.builder
    self._network_factory = experiment.network_factory
    self.environment_spec = environment_spec

  def __getstate__(self) -> dict[str, Any]:
    """What is pickled: what makes networks and policies, and none of these."""
    return {
      "_builder": self._builder,
      "_network_factory": self._network_factory,
      "environment_spec": self.environment_spec,
    }

  @functools.cached_property
  def networks(self) -> Any:
    """The agent's networks."""
    return self._network_factory(self.environment_spec)

  @functools.cached_property
  def policy(self) -> Any:
    """The policy that explores."""
    return self._builder.make_policy(
      self.networks, self.environment_spec, evaluation=False
    )

  @functools.cached_property
  def _evaluation_policy(self) -> Any:
    """The policy that does not explore."""
    return self._builder.make_policy(
      self.networks, self.environment_spec, evaluation=True
    )

  def tables(self) -> Sequence[Any]:
    """Makes replay's tables."""
    return self._builder.make_replay_tables(self.environment_spec, self.policy)

  def check_replay(self) -> None:
    """Raises ValueError if the agent does not go with the environment.

    One with `check_replay` says so without Reverb, which takes longest of all
    to load.
    """
    if self.makes_embedded_replay() and hasattr(self._builder, "check_replay"):
      self._builder.check_replay(self.environment_spec, self.policy)
    else:
      self.tables()

  def makes_embedded_replay(self) -> bool:
    """Whether the builder makes replay in this process's memory."""
    return self._is_last_made("make_embedded_replay", "make_replay_tables")

  def trains_seeds(self) -> bool:
    """Whether the builder makes what trains several seeds at once."""
    return self.makes_embedded_replay() and self._is_last_made(
      "make_seeds_learner", "make_learner"
    )

  def acts_in_several(self) -> bool:
    """Whether the builder makes an actor for several environments or seeds."""
    return self._is_last_made("make_seeds_actor", "make_actor")

  def _is_last_made(self, name: str, other: str) -> bool:
    """Whether no class that extends the one with a method has the other alone.

    A builder that makes something of its own, such as other tables than the
    builder that it extends, and nothing else, is for that.
    """
    for owner in type(self._builder).__mro__:
      if name in vars(owner) or other in vars(owner):
        return name in vars(owner)
    return False

  def embedded_replay(self, seed: int) -> Any:
    """Makes replay in this process's memory."""
    return self._builder.make_embedded_replay(
      self.environment_spec, self.policy, seed
    )

  def dataset(self, client: Any) -> Iterator[Any]:
    """Makes an iterator over what the learner takes from replay."""
    return self._builder.make_dataset_iterator(client)

  def adder(self, client: Any) -> Any:
    """Makes what writes to replay."""
    return self._builder.make_adder(client, self.environment_spec, self.policy)

  def learner(
    self,
    key: Any,
    batches: Iterator[Any],
    logger: Any,
    client: Any,
    counter: Any,
  ) -> Any:
    """Makes the learner.

    Args:
      key: PRNG key of the parameters and of training.
      batches: what it learns from.
      logger: (label, steps_key) -> its logger.
      client: replay's.
      counter: counts its steps.

    Returns:
      The learner.
    """
    return self._builder.make_learner(
      key,
      self.networks,
      batches,
      logger,
      self.environment_spec,
      client,
      counter,
    )

  def actor(self, key: Any, variables: Any, adder: Any) -> Any:
    """Makes an actor that explores, and records what happens."""
    return self._builder.make_actor(
      key, self.policy, self.environment_spec, variables, adder
    )

  def evaluator(self, key: Any, variables: Any) -> Any:
    """Makes an actor that does not explore, and records nothing."""
    return self._builder.make_actor(
      key, self._evaluation_policy, self.environment_spec, variables
    )

  def seeds_learner(self, seeds: Sequence[Any]) -> Any:
    """Makes a learner of several seeds: see `DiffusionBuilder`."""
    return self._builder.make_seeds_learner(
      seeds, self.networks, self.environment_spec
    )

  def seeds_actor(
    self, keys: Sequence[Any], variables: Any, adders: Any = None
  ) -> Any:
    """Makes an actor for several seeds: see `DiffusionBuilder`.

    Args:
      keys: PRNG key of each seed.
      variables: has all seeds' parameters.
      adders: for each seed, what records each of its environments' steps; None
        for an actor that does not explore, and records nothing.
    """
    policy = self._evaluation_policy if adders is None else self.policy
    return self._builder.make_seeds_actor(keys, policy, variables, adders)
