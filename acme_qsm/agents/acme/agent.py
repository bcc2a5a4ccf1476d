"""An agent of Acme's as the launchers train it; Acme is loaded late."""

import dataclasses
import functools
import importlib
from typing import Any
from typing import ClassVar

from acme_qsm import configuration
from acme_qsm import needs
from acme_qsm import specs
from acme_qsm import types


@dataclasses.dataclass(frozen=True)
class AcmeConfig(configuration.Configuration):
  """The settings of all of Acme's agents, with the names that Acme has.

  Attributes:
    acme_name: what Acme calls the agent.
    hidden_layer_sizes: widths of the hidden layers of policy and critics.
    batch_size: transitions per learner step.
    num_sgd_steps_per_step: learner steps made per call of the learner.
    discount: gamma, in [0, 1].
    n_step: environment steps per transition in replay.
    min_replay_size: transitions in replay before learning starts.
    max_replay_size: transitions in replay; the oldest goes first.
    samples_per_insert: transitions sampled per transition inserted.
    samples_per_insert_tolerance_rate: how far, as a share of the samples that
      min_replay_size inserts call for, sampling and inserting may drift apart
      before one waits for the other.
  """

  acme_name: ClassVar[str]

  hidden_layer_sizes: tuple[int, ...] = configuration.widths((256, 256))
  batch_size: int = configuration.positive(256)
  num_sgd_steps_per_step: int = configuration.positive(1)
  discount: float = configuration.unit_interval(0.99)
  n_step: int = configuration.positive(1)
  min_replay_size: int = configuration.positive(10_000)
  max_replay_size: int = configuration.positive(1_000_000)
  samples_per_insert: float = configuration.positive(256.0)
  samples_per_insert_tolerance_rate: float = configuration.positive(0.1)

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least("max_replay_size", "min_replay_size")
    # Reverb's own condition: a step to either side must fit into the window.
    least = max(1.0, 1.0 / self.samples_per_insert) / self.min_replay_size
    if self.samples_per_insert_tolerance_rate < least:
      self.fail(
        "samples_per_insert_tolerance_rate",
        f"at least {least:g} for min_replay_size={self.min_replay_size}",
      )

  @classmethod
  def agent_name(cls) -> str:
    """What the launchers call the agent."""
    return f"acme_{cls.acme_name.lower()}"

  def load(self) -> Any:
    """Loads Acme, and returns the module that it has of the agent.

    Raises:
      ModuleNotFoundError: without the extra `acme`.
    """
    needs.load("acme_qsm.acme_compat", f"The agent {self.agent_name()}")
    return importlib.import_module(f"acme.agents.jax.{self.acme_name.lower()}")

  def make_policy(
    self, networks: Any, environment_spec: Any, evaluation: bool
  ) -> Any:
    """Makes what Acme's builder of the agent takes as its policy network.

    Args:
      networks: from `make_networks`.
      environment_spec: the environment's spec.
      evaluation: whether the policy is for evaluation.

    Returns:
      (parameters, key, observation [B, O]) -> action [B, A].
    """
    raise NotImplementedError


class AcmeAgentBuilder:
  """Builds the parts of one of Acme's agents: an `AcmeBuilder` made late.

  So a run that cannot be is refused before Acme is loaded.

  Attributes:
    config: the agent's configuration.
    agent: its name.
    packs_transitions: see `DiffusionBuilder`.
  """

  packs_transitions = False

  def __init__(self, config: AcmeConfig):
    """Initialises the builder.

    Args:
      config: the agent's configuration.

    Raises:
      ModuleNotFoundError: without the extra `acme`.
    """
    self.config = config
    self.agent = config.agent_name()
    needs.require("acme", f"The agent {self.agent}")

  @functools.cached_property
  def _builder(self) -> Any:
    acme, name = self.config.load(), self.config.acme_name
    adapter = importlib.import_module("acme_qsm.agents.acme.adapter")
    fields = {
      field.name: getattr(self.config, field.name)
      for field in dataclasses.fields(self.config)
      # `make_networks` takes the widths, the builder all else.
      if field.name != "hidden_layer_sizes"
    }
    acme_config = getattr(acme, f"{name}Config")(**fields)
    return adapter.AcmeBuilder(
      functools.partial(getattr(acme, f"{name}Builder"), acme_config),
      self.config.make_policy,
    )

  def __getattr__(self, name: str) -> Any:
    # Python asks for private names when it copies an object that has no
    # attributes yet, and for `_builder` where making it fails.
    if name.startswith("_"):
      raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
    return getattr(self._builder, name)


def make_networks(
  environment_spec: types.EnvironmentSpecLike, config: AcmeConfig
) -> Any:
  """Makes the networks of one of Acme's agents, as Acme makes them.

  Args:
    environment_spec: the environment's spec: observations are one vector,
      actions one in [-1, 1].
    config: the agent's configuration.

  Returns:
    The networks.

  Raises:
    ValueError: if the spec is not one that they can act in.
    ModuleNotFoundError: without the extra `acme`.
  """
  specs.validate_environment_spec(environment_spec)
  return config.load().make_networks(
    environment_spec, config.hidden_layer_sizes
  )
