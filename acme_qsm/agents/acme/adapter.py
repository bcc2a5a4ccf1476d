"""Lets the builders of dm-acme 0.4.0 run in today's experiments."""

import logging
import sys
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from acme_qsm import needs  # isort: skip

needs.load("acme_qsm.acme_compat", "acme_qsm.AcmeBuilder")
needs.require("acme", "acme_qsm.AcmeBuilder")

import jax
import reverb
from acme import adders
from acme import core
from acme import specs
from acme.agents.jax import builders
from acme.utils import counting
from acme.utils import loggers

# The workers that acme.datasets.make_reverb_dataset has by default.
_NUM_DATASET_WORKERS = 12


class AcmeBuilder:
  """An agent of dm-acme 0.4.0, such as its SAC, for `experiments`.

  The builders of that release take other arguments than the `run_experiment`
  and `make_distributed_experiment` of today give, get their learner's logger
  before there is a run, and do not make policies. This one has the methods of
  `DiffusionBuilder`, their arguments in that order, and hands on those that the
  other takes. For SAC:

      AcmeBuilder(
        functools.partial(sac.SACBuilder, sac.SACConfig()),
        lambda networks, environment_spec, evaluation: (
          sac.apply_policy_and_sample(networks, eval_mode=evaluation)
        ),
      )
  """

  def __init__(
    self,
    make_builder: Callable[..., builders.GenericActorLearnerBuilder],
    make_policy: Callable[[Any, specs.EnvironmentSpec, bool], Any],
  ):
    """Initialises the builder.

    Args:
      make_builder: (*, logger_fn) -> the builder; logger_fn() makes the
        learner's logger.
      make_policy: (networks, environment_spec, evaluation) -> what the builder
        takes as the policy network.

    Raises:
      TypeError: if an argument is not a function, or make_builder makes no
        builder with the arguments of dm-acme 0.4.0.
    """
    functions = {"make_builder": make_builder, "make_policy": make_policy}
    for name, function in functions.items():
      if not callable(function):
        raise TypeError(
          f"{name} must be a function, got {function!r}. An example: "
          "AcmeBuilder(functools.partial(SACBuilder, config), make_policy)."
        )
    self._logger: loggers.Logger | None = None
    self._make_policy = make_policy
    self._builder = make_builder(logger_fn=self._take_logger)
    name = type(self._builder).__name__
    if hasattr(self._builder, "make_policy"):
      raise TypeError(
        f"{name} makes policies: it needs no AcmeBuilder and can itself be an "
        "experiment's builder."
      )
    if not isinstance(self._builder, builders.GenericActorLearnerBuilder):
      raise TypeError(
        "make_builder must make an Acme builder, a "
        f"GenericActorLearnerBuilder; it made a {name}."
      )

  @property
  def agent(self) -> str:
    """What is trained, by its builder's class."""
    return type(self._builder).__name__

  @property
  def config(self) -> dict[str, Any]:
    """What identifies the agent: its builder's class and configuration."""
    return {
      "builder": type(self._builder).__name__,
      # Where all of Acme's builders have it.
      "config": getattr(self._builder, "_config", None),
    }

  def make_replay_tables(
    self, environment_spec: specs.EnvironmentSpec, policy: Any = None
  ) -> list[reverb.Table]:
    """Makes the builder's tables.

    A rate limiter's window is widened where it is too narrow for acting and
    learning in turn.
    """
    del policy
    tables = self._builder.make_replay_tables(environment_spec)
    return [self._with_room_for_batches(table) for table in tables]

  def _with_room_for_batches(self, table: reverb.Table) -> reverb.Table:
    """Makes the limiter's window hold what is on its way to the learner.

    Each worker of Acme's dataset collects a batch of its own. If the limiter
    stopped all of them before a batch is complete, a learner would wait for
    ever in a process that cannot act meanwhile.
    """
    info = table.info
    limiter = info.rate_limiter_info
    config = getattr(self._builder, "_config", None)
    batch_size = getattr(config, "batch_size", 0) * getattr(
      config, "num_sgd_steps_per_step", 1
    )
    least = _NUM_DATASET_WORKERS * batch_size + limiter.samples_per_insert
    holds_no_ratio = limiter.max_diff >= sys.float_info.max
    is_queue = info.max_times_sampled == 1
    if holds_no_ratio or is_queue:
      return table
    middle = (limiter.max_diff + limiter.min_diff) / 2.0
    if limiter.max_diff - middle >= least:
      return table
    return table.replace(
      rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
        samples_per_insert=limiter.samples_per_insert,
        min_size_to_sample=limiter.min_size_to_sample,
        error_buffer=(middle - least, middle + least),
      )
    )

  def make_dataset_iterator(self, replay_client: reverb.Client) -> Iterator:
    """Makes the builder's iterator over what its learner takes."""
    return self._builder.make_dataset_iterator(replay_client)

  def make_adder(
    self,
    replay_client: reverb.Client,
    environment_spec: specs.EnvironmentSpec | None = None,
    policy: Any = None,
  ) -> adders.Adder | None:
    """Makes the builder's adder."""
    del environment_spec, policy
    return self._builder.make_adder(replay_client)

  def make_actor(
    self,
    random_key: jax.Array,
    policy: Any,
    environment_spec: specs.EnvironmentSpec | None = None,
    variable_source: core.VariableSource | None = None,
    adder: adders.Adder | None = None,
  ) -> core.Actor:
    """Makes the builder's actor, for a policy of `make_policy`."""
    del environment_spec
    actor = self._builder.make_actor(
      random_key, policy, adder=adder, variable_source=variable_source
    )
    client = getattr(actor, "_variable_client", None)
    if adder is None and client is not None:
      # An actor that records nothing evaluates, and asks for parameters once
      # per evaluation: Acme has no argument for that.
      client._update_period = 1
    return actor

  def make_learner(
    self,
    random_key: jax.Array,
    networks: Any,
    dataset: Iterator,
    logger_fn: Callable[..., loggers.Logger] | None = None,
    environment_spec: specs.EnvironmentSpec | None = None,
    replay_client: reverb.Client | None = None,
    counter: counting.Counter | None = None,
  ) -> core.Learner:
    """Makes the builder's learner, which logs by `logger_fn` if at all."""
    del environment_spec
    self._logger = (
      logger_fn("learner", "learner_steps")
      if logger_fn
      else loggers.NoOpLogger()
    )
    learner = self._builder.make_learner(
      random_key,
      networks,
      dataset,
      replay_client=replay_client,
      counter=counter,
    )
    if self._logger is not None:
      logging.warning(
        "The learner of %s did not ask for the run's logger: does make_builder "
        "give its logger_fn to the builder?",
        type(self._builder).__name__,
      )
    return learner

  def _take_logger(self) -> loggers.Logger | None:
    """Gives the run's logger to the learner that is being made."""
    logger, self._logger = self._logger, None
    return logger

  def make_policy(
    self,
    networks: Any,
    environment_spec: specs.EnvironmentSpec,
    evaluation: bool = False,
  ) -> Any:
    """Makes the policy that the actor acts by."""
    return self._make_policy(networks, environment_spec, evaluation)
