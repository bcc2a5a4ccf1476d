"""Acme's TD3 as an agent of the launchers."""

import dataclasses
from typing import Any
from typing import ClassVar

from acme_qsm import configuration
from acme_qsm.agents.acme.agent import AcmeConfig


@dataclasses.dataclass(frozen=True)
class AcmeTD3Config(AcmeConfig):
  """The settings of Acme's TD3; the defaults are Acme's.

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

  acme_name: ClassVar[str] = "TD3"

  policy_learning_rate: float = configuration.positive(3e-4)
  critic_learning_rate: float = configuration.positive(3e-4)
  policy_gradient_clipping: float | None = configuration.positive(None)
  sigma: float = configuration.non_negative(0.1)
  target_sigma: float = configuration.non_negative(0.2)
  noise_clip: float = configuration.non_negative(0.5)
  min_replay_size: int = configuration.positive(1_000)

  def make_policy(
    self, networks: Any, environment_spec: Any, evaluation: bool
  ) -> Any:
    """Makes Acme's policy, with noise unless it is for evaluation."""
    return self.load().get_default_behavior_policy(
      networks, environment_spec.actions, 0.0 if evaluation else self.sigma
    )
