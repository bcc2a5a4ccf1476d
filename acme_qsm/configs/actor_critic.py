"""What every method can be told: a method's own configuration extends it."""

import dataclasses
from typing import Literal

from acme_qsm import configuration
from acme_qsm.configs.networks import NetworksConfig

CategoricalTarget = Literal["projection", "hl_gauss"]
GradientCritic = Literal["mean", "lowest"]
LearningRateSchedule = Literal["constant", "linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig(NetworksConfig):
  """What every method can be told.

  Attributes:
    batch_size: transitions per learner step.
    num_sgd_steps_per_step: learner steps made per call of the learner, in one
      compiled loop.
    policy_learning_rate: Adam's, for the policy.
    policy_learning_rate_schedule: how it falls to `policy_learning_rate_end`.
    policy_learning_rate_end: where it ends; not read where it is constant.
    policy_learning_rate_begin: updates of the policy before it falls.
    policy_learning_rate_steps: updates of the policy that the fall takes.
    critic_learning_rate: Adam's, for the critics.
    categorical_target: what categorical critics are matched to: the target's
      distribution, projected onto the atoms ("projection"), or its mean,
      smoothed ("hl_gauss").
    normalize_observations: whether networks see observations less their
      running mean, divided by their running standard deviation.
    policy_update_period: learner steps per update of the policy and of the
      targets; the critics are updated at each.
    target_update_rate: tau, the step of the target critics and the target
      policy towards the online ones at each of those updates, in (0, 1].
    discount: gamma, in [0, 1].
    reward_scale: factor of the rewards in the critic's target.
    num_target_candidates: as num_action_candidates, for the actions of the
      critics' target.
    target_action_noise: standard deviation of the Gaussian noise on the
      critic's target actions, which are then clipped to [-1, 1].
    n_step: environment steps per transition in replay.
    exploration_noise: standard deviation of the Gaussian noise on actions
      while collecting data, which are then clipped to [-1, 1].
    num_action_candidates: actions sampled per observation when acting; the one
      with the highest Q is taken.
    num_evaluation_candidates: as num_action_candidates, in evaluation.
    min_replay_size: transitions in replay before learning starts; until then,
      actors act uniformly at random.
    max_replay_size: transitions in replay; the oldest goes first.
    updates_per_step: learner steps per environment step; None to say the same
      by samples_per_insert. With several environments, each makes a step.
    samples_per_insert: transitions sampled per transition inserted, which is
      updates_per_step times batch_size; not read where that is given.
    samples_per_insert_tolerance: how far, as a share of the samples that
      min_replay_size inserts call for, sampling and inserting may drift apart
      before one waits for the other.
    transitions_per_item: transitions that an actor stores together, as one item
      of replay, of which each sample is one at random. With more, replay takes
      less memory and inserting less time, but an actor's newest transitions
      wait until their item is full; replay's sizes are rounded up to whole
      items.
    variable_update_period: environment steps between an actor's requests for
      new parameters.
  """

  # Learning.
  batch_size: int = configuration.positive(256)
  num_sgd_steps_per_step: int = configuration.positive(1)
  policy_learning_rate: float = configuration.positive(3e-4)
  policy_learning_rate_schedule: LearningRateSchedule = "constant"
  policy_learning_rate_end: float = configuration.non_negative(0.0)
  policy_learning_rate_begin: int = configuration.non_negative(0)
  policy_learning_rate_steps: int = configuration.positive(1_000_000)
  critic_learning_rate: float = configuration.positive(3e-4)
  categorical_target: CategoricalTarget = "projection"
  normalize_observations: bool = False
  policy_update_period: int = configuration.positive(1)
  target_update_rate: float = configuration.unit_interval(0.005, "(]")
  discount: float = configuration.unit_interval(0.99)
  reward_scale: float = configuration.positive(1.0)
  num_target_candidates: int = configuration.positive(1)
  target_action_noise: float = configuration.non_negative(0.1)
  # Acting.
  n_step: int = configuration.positive(3)
  exploration_noise: float = configuration.non_negative(0.1)
  num_action_candidates: int = configuration.positive(1)
  num_evaluation_candidates: int = configuration.positive(1)
  # Replay.
  min_replay_size: int = configuration.positive(10_000)
  max_replay_size: int = configuration.positive(1_000_000)
  updates_per_step: float | None = configuration.positive(None)
  samples_per_insert: float = configuration.positive(256.0)
  samples_per_insert_tolerance: float = configuration.positive(0.1)
  transitions_per_item: int = configuration.positive(1)
  variable_update_period: int = configuration.positive(1)

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least("max_replay_size", "min_replay_size")
    self.require_at_least("min_replay_size", "batch_size")

  @property
  def samples_per_transition(self) -> float:
    """Transitions sampled per transition inserted."""
    if self.updates_per_step is None:
      return self.samples_per_insert
    return self.updates_per_step * self.batch_size

  def largest_bonus(self, action_size: int) -> float:
    """The most that the next value's bonus is worth as training starts.

    Args:
      action_size: A.

    Returns:
      A bound of its expectation, in units of scaled reward, not negative; 0
      without such a bonus.
    """
    del action_size
    return 0.0

  def acts_by_target(self, evaluation: bool) -> bool:
    """Whether actions are the target policy's, not the online policy's."""
    del evaluation
    return False
