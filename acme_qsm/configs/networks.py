"""What networks can be told: the part that all configurations extend."""

import dataclasses
from typing import Literal

from acme_qsm import configuration

CriticBody = Literal["mlp", "layer_norm", "simba"]
CriticHead = Literal["scalar", "categorical", "quantile"]


@dataclasses.dataclass(frozen=True)
class NetworksConfig(configuration.Configuration):
  """Sizes of a policy and of its critics.

  Attributes:
    policy_hidden_sizes: widths of the policy's hidden layers.
    critic_hidden_sizes: widths of each critic's hidden layers.
    num_critics: critics; the target is their minimum.
    critic_body: a critic's hidden layers. "mlp": linear layers and relus.
      "layer_norm": the same with each linear layer's output normalised.
      "simba": residual blocks (Lee et al., 2024), one per entry of
      critic_hidden_sizes, which must all be the same.
    critic_head: what a critic predicts. "scalar": Q itself. "categorical": a
      distribution over `num_atoms` returns (Bellemare et al., 2017).
      "quantile": `num_quantiles` quantiles of the return (Dabney et al., 2018).
      Q is the distribution's mean.
    num_atoms: returns of a categorical critic, at least 2.
    min_value: the lowest of them.
    max_value: the highest of them. Both are in units of scaled reward, summed
      with the discount: with a reward in [0, 1] and discount 0.99, Q is within
      0 and 100. Where an environment states its rewards' bounds, atoms that
      cannot hold such returns are refused.
    num_quantiles: quantiles of a quantile critic.
  """

  policy_hidden_sizes: tuple[int, ...] = configuration.widths((256, 256))
  critic_hidden_sizes: tuple[int, ...] = configuration.widths((256, 256))
  num_critics: int = configuration.positive(2)
  critic_body: CriticBody = "mlp"
  critic_head: CriticHead = "scalar"
  num_atoms: int = configuration.checked(
    121, lambda value: value >= 2, "at least 2"
  )
  min_value: float = -10.0
  max_value: float = 110.0
  num_quantiles: int = configuration.positive(32)

  def __post_init__(self):
    super().__post_init__()
    if self.max_value <= self.min_value:
      self.fail("max_value", f"above min_value={self.min_value}")
    if self.critic_body == "simba" and len(set(self.critic_hidden_sizes)) > 1:
      self.fail("critic_hidden_sizes", "of one width for critic_body='simba'")


@dataclasses.dataclass(frozen=True)
class DenoiserConfig(NetworksConfig):
  """The same where the policy is a denoiser.

  Attributes:
    time_embedding_size: Fourier features of the denoising step, even.
    time_hidden_size: width of the time embedding's layers.
    num_denoising_steps: T, denoising steps of an action.
  """

  time_embedding_size: int = configuration.checked(
    64, lambda value: value > 0 and value % 2 == 0, "positive and even"
  )
  time_hidden_size: int = configuration.positive(128)
  num_denoising_steps: int = configuration.positive(10)
