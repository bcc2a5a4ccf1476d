"""What iterated denoising energy matching can be told."""

import dataclasses
from typing import Literal

from acme_qsm import configuration
from acme_qsm.configs import presets
from acme_qsm.configs.reverse_sampling import ReverseSamplingConfig

Estimator = Literal["least_variance", "gradient"]


@dataclasses.dataclass(frozen=True)
class IDEMConfig(ReverseSamplingConfig):
  """Everything that iterated denoising energy matching can be told.

  The reverse samples' gradient is that of the lowest of the critics, divided by
  the temperature: E' of `losses.noised_energy_action`.

  Attributes:
    estimator: what the target is made of. "gradient": the gradients, as
      published, but for the box: the mean clean action is then as noisy as they
      are where there is much noise. "least_variance": mixed with the mean
      noise, `sdac`'s target, in the shares of least variance.
  """

  estimator: Estimator = "least_variance"
  num_reverse_samples: int = configuration.positive(8)
  target_kl: float = configuration.positive(1.0)

  def __post_init__(self):
    if self.weights != "self_normalized":
      self.fail("weights", "'self_normalized'")
    super().__post_init__()


PRESETS: dict[str, IDEMConfig] = {
  "default": IDEMConfig(),
  # Of the implementation of Ma et al. (2025), but for its noise, which there
  # decays: it has no temperature.
  "reference": IDEMConfig(
    **presets.REFERENCE,
    noisy_action_source="policy",
    num_reverse_samples=64,
    reverse_sampling="clipped",
    estimator="gradient",
    # Of the unscaled return: 1 of the scaled one.
    boltzmann_temperature=5.0,
    temperature_update="constant",
  ),
}
