"""Builds the parts of a diffusion policy's agent for an Acme experiment."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax

from acme_qsm import methods
from acme_qsm import needs
from acme_qsm import types
from acme_qsm.agents.actor import Actor
from acme_qsm.agents.actor import Adder
from acme_qsm.agents.actor import VariableClient
from acme_qsm.agents.actor import VariableSource
from acme_qsm.agents.learner import DiffusionLearner
from acme_qsm.agents.learner import LearnerSeed
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.configs.qsm import QSMConfig
from acme_qsm.core import Policy
from acme_qsm.replay import memory_limit
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.items import draw_of_items
from acme_qsm.replay.pacing import make_pace
from acme_qsm.specs import validate_environment_spec

if typing.TYPE_CHECKING:
  import reverb

  from acme_qsm.replay.reverb_adder import ReverbAdder


class DiffusionBuilder:
  """Any method of `acme_qsm.methods` for Acme.

  A plain class with the methods of the builders of Acme's later
  `run_experiment` and `make_distributed_experiment`, their arguments in that
  order. What makes replay in Reverb needs the extra `acme`, all else does not;
  replay in the memory of one process is `make_embedded_replay`'s.

  Attributes:
    config: the method's configuration.
    agent: the method's name.
    packs_transitions: that replay holds float32, whatever environments give;
      what else a run trains has replay of the types that the spec says.
  """

  packs_transitions = True

  def __init__(self, config: ActorCriticConfig):
    """Initialises the builder.

    Args:
      config: the configuration of any method.

    Raises:
      ValueError: if no method is configured by it, or one that does not learn
        from single transitions.
    """
    self.config = config
    self.agent, self._method = methods.find(config)
    if self._method.data != "transitions":
      raise ValueError(
        f"{self.agent} learns from {self._method.data}, which no replay gives."
      )

  def _make_codec(
    self,
    environment_spec: types.EnvironmentSpecLike,
    policy: Policy | None,
  ) -> TransitionCodec:
    """What packs transitions, with the extras that the policy gives."""
    return TransitionCodec(
      environment_spec, {} if policy is None else policy.extras_spec
    )

  def check_replay(
    self,
    environment_spec: types.EnvironmentSpecLike,
    policy: Policy | None = None,
  ) -> None:
    """Raises ValueError unless replay can hold an environment's transitions.

    Args:
      environment_spec: the environment's spec.
      policy: ignored.
    """
    del policy
    validate_environment_spec(environment_spec, flat_observation=False)

  def make_replay_tables(
    self,
    environment_spec: types.EnvironmentSpecLike,
    policy: Policy | None = None,
  ) -> list[reverb.Table]:
    """Makes Reverb's table of transitions, sampled uniformly.

    Args:
      environment_spec: sets the table's signature.
      policy: the one that acts, whose extras replay holds; None for one
        without extras.

    Returns:
      One table, whose rate limiter holds samples per insert; its items are of
      `transitions_per_item` transitions each.

    Raises:
      ValueError: if the spec is not one that the library can act in.
      ModuleNotFoundError: without Reverb.
    """
    self.check_replay(environment_spec, policy)
    config = self.config
    return [
      _load_reverb_tables().make_table(
        self._make_codec(environment_spec, policy),
        make_pace(config),
        config.max_replay_size,
        config.transitions_per_item,
      )
    ]

  def make_embedded_replay(
    self,
    environment_spec: types.EnvironmentSpecLike,
    policy: Policy | None = None,
    seed: int = 0,
  ) -> EmbeddedReplay:
    """Makes replay in this process's memory, sampled uniformly.

    What `make_replay_tables` is to Reverb; `make_adder` and
    `make_dataset_iterator` take it in place of a client.

    Args:
      environment_spec: tells the size of a transition.
      policy: as for `make_replay_tables`.
      seed: of the draws.

    Returns:
      The replay, empty; `transitions_per_item` means nothing to it.

    Raises:
      ValueError: if the spec is not one that the library can act in, or replay
        does not fit into memory when it is full.
    """
    self.check_replay(environment_spec, policy)
    config = dataclasses.replace(self.config, transitions_per_item=1)
    codec = self._make_codec(environment_spec, policy)
    memory_limit.require_memory(
      config.max_replay_size, 4 * codec.size, memory_limit.available_memory()
    )
    return EmbeddedReplay(
      codec.size,
      config.max_replay_size,
      make_pace(config),
      seed,
      extras=codec.describe_extras(),
    )

  def make_dataset_iterator(
    self, replay_client: EmbeddedReplay | reverb.Client
  ) -> Iterator[Any]:
    """Makes an iterator over batches from replay.

    Args:
      replay_client: the replay server's client, or the replay in this process.

    Returns:
      An iterator over samples whose `data` is a numpy array [batch_size *
      num_sgd_steps_per_step, D] of packed transitions. Reverb's are items,
      transitions_per_item * D; of each the learner draws one transition; and
      its next batch is fetched while one is in use.

    Raises:
      ModuleNotFoundError: without Reverb, if it is to come from there.
    """
    batch_size = self.config.batch_size * self.config.num_sgd_steps_per_step
    if isinstance(replay_client, EmbeddedReplay):
      return replay_client.batches(batch_size)
    return _load_reverb_tables().make_dataset_iterator(
      replay_client, batch_size
    )

  def make_adder(
    self,
    replay_client: EmbeddedReplay | reverb.Client,
    environment_spec: types.EnvironmentSpecLike | None = None,
    policy: Policy | None = None,
  ) -> TransitionAdder | ReverbAdder:
    """Makes an adder of n-step transitions.

    Args:
      replay_client: the replay server's client, or the replay in this process.
      environment_spec: the environment's spec.
      policy: as for `make_replay_tables`.

    Returns:
      The adder.

    Raises:
      ValueError: without an environment_spec.
      ModuleNotFoundError: without Reverb, if it is to write there.
    """
    codec = self._make_codec(_require_spec(environment_spec), policy)
    config = self.config
    if isinstance(replay_client, EmbeddedReplay):
      return TransitionAdder(
        replay_client.insert,
        codec,
        n_step=config.n_step,
        discount=config.discount,
      )
    reverb_adder = needs.load(
      "acme_qsm.replay.reverb_adder", "An adder to Reverb"
    )
    return reverb_adder.ReverbAdder(
      replay_client,
      codec,
      n_step=config.n_step,
      discount=config.discount,
      transitions_per_item=config.transitions_per_item,
    )

  def make_actor(
    self,
    random_key: jax.Array,
    policy: Policy,
    environment_spec: types.EnvironmentSpecLike | None = None,
    variable_source: VariableSource | None = None,
    adder: Adder | None = None,
  ) -> Actor:
    """Makes an actor, which runs on the CPU.

    Args:
      random_key: PRNG key of its actions.
      policy: from `make_policy`.
      environment_spec: ignored.
      variable_source: answers "acting_policy" or "evaluation_policy" with
        what the policy needs.
      adder: records what happens; None to record nothing.

    Returns:
      The actor.

    Raises:
      ValueError: without a variable_source.
    """
    del environment_spec
    if variable_source is None:
      raise ValueError("An actor needs a variable_source for its parameters.")
    return self.make_seeds_actor(
      [random_key],
      policy,
      variable_source,
      None if adder is None else [[adder]],
    )

  def make_learner(
    self,
    random_key: jax.Array,
    networks: Any,
    dataset: Iterator[Any],
    logger_fn: Callable[..., Any] | None = None,
    environment_spec: types.EnvironmentSpecLike | None = None,
    replay_client: Any = None,
    counter: Any = None,
  ) -> DiffusionLearner:
    """Makes the learner.

    Args:
      random_key: PRNG key of the parameters and of training.
      networks: the method's networks.
      dataset: from `make_dataset_iterator`, or another iterator over samples
        whose `data` are packed transitions (see `TransitionCodec`) [batch_size
        * num_sgd_steps_per_step, D] or items of several; a step takes one.
      logger_fn: (label, steps_key) -> logger; None to log nothing.
      environment_spec: the environment's spec.
      replay_client: the replay in this process, which takes the transitions'
        extras if they have any, or else whatever.
      counter: counts learner steps; None to count them in the log alone.

    Returns:
      The learner.

    Raises:
      ValueError: without an environment_spec.
    """
    environment_spec = _require_spec(environment_spec)
    codec = self._make_codec(
      environment_spec, self.make_policy(networks, environment_spec)
    )
    embeds = isinstance(replay_client, EmbeddedReplay)
    seed = LearnerSeed(
      random_key,
      draw_of_items(dataset, codec.size, random_key),
      counter,
      logger_fn("learner", "learner_steps") if logger_fn else None,
      replay_client if embeds else None,
    )
    return self.make_seeds_learner([seed], networks, environment_spec)

  def make_seeds_actor(
    self,
    random_keys: Sequence[jax.Array],
    policy: Policy,
    variable_source: VariableSource,
    adders: Sequence[Sequence[Adder]] | None = None,
  ) -> Actor:
    """Makes an actor for S seeds: of one, `make_actor`'s.

    Args:
      random_keys: PRNG key of each seed's actions.
      policy: from `make_policy`.
      variable_source: as for `make_actor`, with all seeds' parameters, stacked.
      adders: for each seed, what records each of its environments' steps; None
        to record nothing.

    Returns:
      The actor.
    """
    # An actor that records nothing evaluates, and asks once per evaluation.
    period = 1 if adders is None else self.config.variable_update_period
    name = "evaluation_policy" if policy.evaluation else "acting_policy"
    client = VariableClient(variable_source, name, period, len(random_keys))
    return Actor(policy, random_keys, client, adders)

  def make_seeds_learner(
    self,
    seeds: Sequence[LearnerSeed],
    networks: Any,
    environment_spec: types.EnvironmentSpecLike,
  ) -> DiffusionLearner:
    """Makes a learner of S seeds: of one, `make_learner`'s.

    Args:
      seeds: their batches, from `make_dataset_iterator`, and where their
        records go.
      networks: the method's networks.
      environment_spec: the environment's spec.

    Returns:
      The learner.
    """
    return DiffusionLearner(
      self._method.make_learner_core(networks, self.config),
      seeds,
      self._make_codec(
        environment_spec, self.make_policy(networks, environment_spec)
      ),
      num_sgd_steps_per_step=self.config.num_sgd_steps_per_step,
    )

  def make_policy(
    self,
    networks: Any,
    environment_spec: types.EnvironmentSpecLike | None = None,
    evaluation: bool = False,
  ) -> Policy:
    """Makes the policy: see `acme_qsm.make_policy`.

    Args:
      networks: the method's networks.
      environment_spec: ignored.
      evaluation: whether to act without exploration noise.

    Returns:
      policy(params, key, observation [B, ...]) -> action [B, A].
    """
    del environment_spec
    return self._method.make_policy(networks, self.config, evaluation)


class QSMBuilder(DiffusionBuilder):
  """Q-score matching for Acme: see `DiffusionBuilder`."""

  def __init__(self, config: QSMConfig | None = None):
    """Initialises the builder.

    Args:
      config: the method's configuration; None for the defaults.
    """
    super().__init__(config or QSMConfig())


def _load_reverb_tables() -> Any:
  return needs.load("acme_qsm.replay.reverb_tables", "Replay in Reverb")


def _require_spec(
  environment_spec: types.EnvironmentSpecLike | None,
) -> types.EnvironmentSpecLike:
  if environment_spec is None:
    raise ValueError("The builder needs the environment_spec.")
  return environment_spec
