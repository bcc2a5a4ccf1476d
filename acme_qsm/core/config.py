"""The configuration of Q-score matching."""

import dataclasses
import math
from typing import get_args
from typing import Literal

from acme_qsm import diffusion

ScoreTarget = Literal["boltzmann", "action_gradient"]


@dataclasses.dataclass(frozen=True)
class QSMConfig:
  """Everything that Q-score matching can be told.

  Attributes:
    policy_hidden_sizes: widths of the denoiser's hidden layers.
    critic_hidden_sizes: widths of each critic's hidden layers.
    time_embedding_size: Fourier features of the denoising step, even.
    time_hidden_size: width of the time embedding's layers.
    num_critics: critics; the target is their minimum, the action gradient
      that of their mean.
    num_denoising_steps: T, denoising steps of an action.
    noise_schedule: "vp", "cosine" or "linear".
    sampling_temperature: scale of the sampler's noise when acting and in the
      critic's target.
    score_target: what the denoiser is matched to. "boltzmann": the critic's
      gradient with the pull of a standard normal prior, see
      `losses.boltzmann_score_matching_loss`. "action_gradient": the
      critic's gradient alone, as published.
    q_score_scale: scale of the critic's action gradient: alpha of the paper
      (M_q in the official implementation), kappa of the Boltzmann policy.
    normalize_action_gradient: whether to divide the action gradient by a
      running root mean square of itself, which makes q_score_scale independent
      of the rewards' scale, of the discount and of the task.
    action_gradient_decay: decay per learner step of that running mean, in
      [0, 1).
    action_gradient_clip: bound of each component of the scaled action gradient;
      None for no bound. What is beyond takes the action to the end of its range
      anyway, but would have most of the denoiser's loss.
    batch_size: transitions per learner step.
    num_sgd_steps_per_step: learner steps made per call of the learner, in one
      compiled loop.
    policy_learning_rate: Adam's, for the denoiser.
    critic_learning_rate: Adam's, for the critics.
    target_update_rate: tau, the step of the target critics and the target
      denoiser towards the newest ones after each learner step, in (0, 1].
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
    evaluate_target_denoiser: whether evaluation samples from the target
      denoiser rather than the newest one.
    evaluation_temperature: scale of the sampler's noise in evaluation.
    num_evaluation_candidates: as num_action_candidates, in evaluation.
    min_replay_size: transitions in replay before learning starts; until then,
      actors act uniformly at random.
    max_replay_size: transitions in replay; the oldest goes first.
    samples_per_insert: transitions sampled per transition inserted; as many as
      batch_size is one learner step per environment step.
    samples_per_insert_tolerance: how far, as a share of min_replay_size times
      samples_per_insert, sampling and inserting may drift apart before one
      waits for the other.
    transitions_per_item: transitions that an actor stores together, as one item
      of replay, of which each sample is one at random. With more, replay takes
      less memory and inserting less time, but an actor's newest transitions
      wait until their item is full; replay's sizes are rounded up to whole
      items.
    variable_update_period: environment steps between an actor's requests for
      new parameters.
  """

  # Networks.
  policy_hidden_sizes: tuple[int, ...] = (256, 256)
  critic_hidden_sizes: tuple[int, ...] = (256, 256)
  time_embedding_size: int = 64
  time_hidden_size: int = 128
  num_critics: int = 2
  # Diffusion.
  num_denoising_steps: int = 10
  noise_schedule: diffusion.ScheduleName = "vp"
  sampling_temperature: float = 1.0
  # Score matching.
  score_target: ScoreTarget = "boltzmann"
  q_score_scale: float = 10.0
  normalize_action_gradient: bool = False
  action_gradient_decay: float = 0.999
  action_gradient_clip: float | None = 5.0
  # Learning.
  batch_size: int = 256
  num_sgd_steps_per_step: int = 1
  policy_learning_rate: float = 3e-4
  critic_learning_rate: float = 3e-4
  target_update_rate: float = 0.005
  discount: float = 0.99
  reward_scale: float = 1.0
  num_target_candidates: int = 1
  target_action_noise: float = 0.1
  # Acting.
  n_step: int = 3
  exploration_noise: float = 0.1
  num_action_candidates: int = 1
  evaluate_target_denoiser: bool = True
  evaluation_temperature: float = 1.0
  num_evaluation_candidates: int = 1
  # Replay.
  min_replay_size: int = 10_000
  max_replay_size: int = 1_000_000
  samples_per_insert: float = 256.0
  samples_per_insert_tolerance: float = 0.1
  transitions_per_item: int = 1
  variable_update_period: int = 1

  def __post_init__(self):
    positive = (
      "time_embedding_size",
      "time_hidden_size",
      "num_critics",
      "num_denoising_steps",
      "q_score_scale",
      "batch_size",
      "num_sgd_steps_per_step",
      "policy_learning_rate",
      "critic_learning_rate",
      "reward_scale",
      "n_step",
      "num_target_candidates",
      "num_action_candidates",
      "num_evaluation_candidates",
      "min_replay_size",
      "max_replay_size",
      "samples_per_insert",
      "samples_per_insert_tolerance",
      "transitions_per_item",
      "variable_update_period",
    )
    non_negative = (
      "sampling_temperature",
      "target_action_noise",
      "exploration_noise",
      "evaluation_temperature",
    )
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and type(value) is not int:
        self._fail(field.name, "an integer")
      if isinstance(value, float) and not math.isfinite(value):
        self._fail(field.name, "finite")
    if self.action_gradient_clip is not None:
      positive += ("action_gradient_clip",)
    for name in positive:
      if getattr(self, name) <= 0:
        self._fail(name, "positive")
    for name in non_negative:
      if getattr(self, name) < 0:
        self._fail(name, "at least 0")
    for name in ("policy_hidden_sizes", "critic_hidden_sizes"):
      sizes = getattr(self, name)
      if not isinstance(sizes, tuple) or not sizes or min(sizes) <= 0:
        self._fail(name, "a tuple of one or more positive widths")
    if self.time_embedding_size % 2:
      self._fail("time_embedding_size", "even")
    if not 0 <= self.action_gradient_decay < 1:
      self._fail("action_gradient_decay", "in [0, 1)")
    if not 0 < self.target_update_rate <= 1:
      self._fail("target_update_rate", "in (0, 1]")
    if not 0 <= self.discount <= 1:
      self._fail("discount", "in [0, 1]")
    if self.noise_schedule not in get_args(diffusion.ScheduleName):
      self._fail("noise_schedule", f"in {get_args(diffusion.ScheduleName)}")
    if self.score_target not in get_args(ScoreTarget):
      self._fail("score_target", f"in {get_args(ScoreTarget)}")
    if self.max_replay_size < self.min_replay_size:
      self._fail(
        "max_replay_size", f"at least min_replay_size={self.min_replay_size}"
      )
    if self.min_replay_size < self.batch_size:
      self._fail("min_replay_size", f"at least batch_size={self.batch_size}")

  def _fail(self, name: str, allowed: str):
    raise ValueError(
      f"QSMConfig.{name} must be {allowed}, got {getattr(self, name)!r}."
    )


PRESETS = {
  "default": QSMConfig(),
  # The official implementation's method, with the paper's widths: the critic's
  # gradient alone as target, one-step returns, the sampler's action as it is.
  "official": QSMConfig(
    num_denoising_steps=5,
    score_target="action_gradient",
    q_score_scale=50.0,
    normalize_action_gradient=False,
    action_gradient_clip=None,
    num_target_candidates=1,
    n_step=1,
    num_action_candidates=1,
    evaluate_target_denoiser=False,
    num_evaluation_candidates=1,
  ),
}
"""Configurations by name."""
