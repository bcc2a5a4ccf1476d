"""Acme's own agents by name: what they can be told, without loading Acme."""

import dataclasses
import functools
from typing import Any

from acme_qsm import configuration
from acme_qsm import lazy
from acme_qsm import specs
from acme_qsm import types


@dataclasses.dataclass(frozen=True)
class AcmeConfig(configuration.Configuration):
  """What each of Acme's agents can be told, with the names that Acme has.

  Attributes:
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


@dataclasses.dataclass(frozen=True)
class AcmeSACConfig(AcmeConfig):
  """What Acme's SAC can be told; the defaults are Acme's.

  Attributes:
    learning_rate: Adam's, for the policy and the critics.
    reward_scale: factor of the rewards.
    entropy_coefficient: of the policy's entropy; None to adapt it.
    target_entropy: the entropy, in nats, that it is adapted to; 0 where it is
      not adapted.
    tau: the step of the target critics towards the online ones, in (0, 1].
  """

  learning_rate: float = configuration.positive(3e-4)
  reward_scale: float = configuration.positive(1.0)
  entropy_coefficient: float | None = configuration.non_negative(None)
  target_entropy: float = 0.0
  tau: float = configuration.unit_interval(0.005, "(]")

  def __post_init__(self):
    super().__post_init__()
    if self.entropy_coefficient is not None and self.target_entropy:
      self.fail("target_entropy", "0 where entropy_coefficient is given")


@dataclasses.dataclass(frozen=True)
class AcmeTD3Config(AcmeConfig):
  """What Acme's TD3 can be told; the defaults are Acme's.

  Its `delay` and `tau` are not here: the builder of dm-acme 0.4.0 does not hand
  them on to its learner, which has 2 and 0.005.

  Attributes:
    policy_learning_rate: Adam's, for the policy.
    critic_learning_rate: Adam's, for the critics.
    policy_gradient_clipping: the norm that the policy's gradient is clipped to;
      None for any.
    sigma: standard deviation of the Gaussian noise on actions while collecting
      data.
    target_sigma: standard deviation of the Gaussian noise on the critics'
      target actions.
    noise_clip: the most that this noise may be.
  """

  policy_learning_rate: float = configuration.positive(3e-4)
  critic_learning_rate: float = configuration.positive(3e-4)
  policy_gradient_clipping: float | None = configuration.positive(None)
  sigma: float = configuration.non_negative(0.1)
  target_sigma: float = configuration.non_negative(0.2)
  noise_clip: float = configuration.non_negative(0.5)
  min_replay_size: int = configuration.positive(1_000)


CONFIGS: dict[str, type[AcmeConfig]] = {
  "acme_sac": AcmeSACConfig,
  "acme_td3": AcmeTD3Config,
}
"""The configurations of Acme's agents by their names."""


def name_of(config: AcmeConfig) -> str:
  """The name in `CONFIGS` of the agent that a configuration is for."""
  (name,) = [name for name, each in CONFIGS.items() if each is type(config)]
  return name


class AcmeAgentBuilder:
  """Builds the parts of one of Acme's agents: an `AcmeBuilder` made late.

  So that what is wrong with a run is said before Acme is loaded.

  Attributes:
    config: the agent's configuration.
    agent: its name.
    packs_transitions: see `DiffusionBuilder`.
  """

  packs_transitions = False

  def __init__(self, config: AcmeConfig):
    """Initialises the builder.

    Args:
      config: a configuration of `CONFIGS`.

    Raises:
      ModuleNotFoundError: without the extra `acme`.
    """
    self.config = config
    self.agent = name_of(config)
    lazy.require("acme", f"The agent {self.agent}")

  @functools.cached_property
  def _builder(self) -> Any:
    return _load(self.config).make_builder(self.config)

  def __getattr__(self, name: str) -> Any:
    # Python asks for those, to copy an object that has no attributes yet, and
    # for `_builder` where making it fails.
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
    config: a configuration of `CONFIGS`.

  Returns:
    The networks.

  Raises:
    ValueError: if the spec is not one that they can act in.
    ModuleNotFoundError: without the extra `acme`.
  """
  specs.validate_environment_spec(environment_spec)
  return _load(config).make_networks(environment_spec, config)


def _load(config: AcmeConfig) -> Any:
  return lazy.load("acme_qsm.agents.acme_parts", f"The agent {name_of(config)}")
