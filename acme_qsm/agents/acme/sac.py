"""Acme's SAC as an agent of the launchers."""

import dataclasses
from typing import Any
from typing import ClassVar

from acme_qsm import configuration
from acme_qsm.agents.acme.agent import AcmeConfig


@dataclasses.dataclass(frozen=True)
class AcmeSACConfig(AcmeConfig):
  """The settings of Acme's SAC; the defaults are Acme's.

  Attributes:
    learning_rate: Adam's, for the policy and the critics.
    reward_scale: factor of the rewards.
    entropy_coefficient: of the policy's entropy; None to adapt it.
    target_entropy: the entropy, in nats, that it is adapted to; 0 where it is
      not adapted.
    tau: the step of the target critics towards the online ones, in (0, 1].
  """

  acme_name: ClassVar[str] = "SAC"

  learning_rate: float = configuration.positive(3e-4)
  reward_scale: float = configuration.positive(1.0)
  entropy_coefficient: float | None = configuration.non_negative(None)
  target_entropy: float = 0.0
  tau: float = configuration.unit_interval(0.005, "(]")

  def __post_init__(self):
    super().__post_init__()
    if self.entropy_coefficient is not None and self.target_entropy:
      self.fail("target_entropy", "0 where entropy_coefficient is given")

  def make_policy(
    self, networks: Any, environment_spec: Any, evaluation: bool
  ) -> Any:
    """Makes Acme's policy: a sample, or the mode for evaluation."""
    del environment_spec
    return self.load().apply_policy_and_sample(networks, eval_mode=evaluation)
