"""What soft actor-critic can be told."""

import dataclasses
import math

from acme_qsm import configuration
from acme_qsm.configs.actor_critic import ActorCriticConfig


@dataclasses.dataclass(frozen=True)
class GaussianConfig(ActorCriticConfig):
  """Everything that soft actor-critic can be told.

  Attributes:
    entropy_temperature: of the policy's entropy, where it starts; in units of
      scaled reward.
    entropy_temperature_learning_rate: Adam's, for its logarithm; 0 keeps it.
    target_entropy: the entropy that it is moved towards, in nats per dimension
      of the action; below log 2, which is the uniform policy's.
    entropy_in_target: whether the critics' target has the entropy of the next
      action, as in soft actor-critic; else it enters the policy's loss alone.
      Returns have it then too, which a categorical critic's atoms must hold:
      `atoms.require_hold_returns`.
    evaluate_mode: whether evaluation takes the most likely action before it is
      squashed, not a random one.
  """

  entropy_temperature: float = configuration.positive(0.1)
  entropy_temperature_learning_rate: float = configuration.non_negative(3e-4)
  target_entropy: float = configuration.checked(
    -0.5,
    lambda value: value < math.log(2.0),
    "below log 2 = 0.693, the entropy of the uniform policy",
  )
  entropy_in_target: bool = True
  evaluate_mode: bool = True
  # The policy's own noise explores.
  exploration_noise: float = configuration.non_negative(0.0)
  target_action_noise: float = configuration.non_negative(0.0)

  def largest_bonus(self, action_size: int) -> float:
    """See `ActorCriticConfig`: no policy has more entropy than the uniform."""
    if not self.entropy_in_target:
      return 0.0
    return self.entropy_temperature * action_size * math.log(2.0)


PRESETS: dict[str, GaussianConfig] = {
  "default": GaussianConfig(),
  # Haarnoja et al. (2018), table 1.
  "paper": GaussianConfig(
    entropy_temperature=1.0,
    target_entropy=-1.0,
    n_step=1,
  ),
}
