"""What can be said of each toy: loads quickly, for help and bad input."""

import dataclasses
import math

from acme_qsm import configuration

MAX_LANGEVIN_ALPHA = 50.0
"""Beyond about 64, Langevin's step of `boltzmann` overshoots the modes."""


def _alphas(default: tuple[float, ...], most: float = math.inf) -> tuple:
  """A field of scales alpha: one or more, from 0 to `most`."""
  limit = "at least 0" if math.isinf(most) else f"from 0 to {most:g}"
  return configuration.checked(
    default,
    lambda values: (
      len(values) > 0
      and all(math.isfinite(value) and 0 <= value <= most for value in values)
    ),
    f"one or more finite numbers, each {limit}",
  )


@dataclasses.dataclass(frozen=True)
class Arguments(configuration.Configuration):
  """What can be said of every toy.

  Attributes:
    workdir: where result.json and the picture go; by default runs/toys/<toy>.
  """

  workdir: str | None = None

  def __post_init__(self):
    # Not here: tyro would break the error into a box.
    pass

  def validate(self) -> None:
    """Checks the values.

    Raises:
      ValueError: naming what is out of range.
    """
    super().__post_init__()


@dataclasses.dataclass(frozen=True)
class Sampled(Arguments):
  """What can be said of a toy that draws samples.

  Attributes:
    seed: seed of networks, training and samples.
    num_samples: samples drawn of each method.
  """

  seed: int = configuration.checked(
    0, lambda value: 0 <= value < 2**32, "in [0, 2^32)"
  )
  # With fewer, shares and histograms would say nothing.
  num_samples: int = configuration.checked(
    20_000, lambda value: value >= 1_000, "at least 1000"
  )


@dataclasses.dataclass(frozen=True)
class Mixture(Sampled):
  """The arguments of `mixture`.

  Attributes:
    num_steps: gradient steps of each denoiser.
  """

  num_steps: int = configuration.positive(10_000)


@dataclasses.dataclass(frozen=True)
class Modes(Sampled):
  """The arguments of `modes`.

  Attributes:
    num_steps: gradient steps of each denoiser.
  """

  num_steps: int = configuration.positive(3_000)


@dataclasses.dataclass(frozen=True)
class Boltzmann(Sampled):
  """The arguments of `boltzmann`.

  Attributes:
    alphas: scales of the gradient, from 0 to 50.
    num_steps: Langevin steps.
  """

  alphas: tuple[float, ...] = _alphas(
    (0.0, 1.0, 2.0, 5.0, 10.0, 20.0), MAX_LANGEVIN_ALPHA
  )
  num_steps: int = configuration.positive(2_000)


@dataclasses.dataclass(frozen=True)
class Gridworld(Arguments):
  """The arguments of `gridworld`.

  Attributes:
    alphas: scales of Q, at least 0.
    num_updates: updates of each policy.
  """

  alphas: tuple[float, ...] = _alphas(
    (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
  )
  num_updates: int = configuration.positive(200)
