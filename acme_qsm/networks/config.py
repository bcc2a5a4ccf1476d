"""The networks' part of a method's configuration."""

import dataclasses

from acme_qsm import configuration


@dataclasses.dataclass(frozen=True)
class NetworksConfig(configuration.Configuration):
  """Sizes of a policy and of its critics.

  Attributes:
    policy_hidden_sizes: widths of the policy's hidden layers.
    critic_hidden_sizes: widths of each critic's hidden layers.
    num_critics: critics; the target is their minimum.
  """

  policy_hidden_sizes: tuple[int, ...] = configuration.widths((256, 256))
  critic_hidden_sizes: tuple[int, ...] = configuration.widths((256, 256))
  num_critics: int = configuration.positive(2)


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
