"""Noise levels in numpy, and the names of what a diffusion can be.

Configurations are checked by them before JAX is loaded.
"""

from typing import get_args
from typing import Literal

import numpy as np

PosteriorVariance = Literal["fixed_small", "fixed_large"]
"""Of the transition "posterior"; named as in the code of Nichol & Dhariwal
(2021)."""
ScheduleName = Literal["vp", "cosine", "linear"]
TransitionName = Literal["noise_mean", "posterior"]


def _vp_betas(num_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
  # The variance-preserving SDE of Song et al. (2021), discretised as in Xiao et
  # al. (2022), https://arxiv.org/abs/2112.07804.
  t = np.arange(1, num_steps + 1)
  return 1.0 - np.exp(
    -beta_start / num_steps
    - 0.5 * (beta_end - beta_start) * (2 * t - 1) / num_steps**2
  )


def _cosine_betas(num_steps: int) -> np.ndarray:
  # Nichol & Dhariwal (2021), eq. 17, https://arxiv.org/abs/2102.09672.
  offset = 0.008
  t = np.arange(num_steps + 1) / num_steps
  alpha_bars = np.cos((t + offset) / (1 + offset) * np.pi / 2) ** 2
  return np.clip(1.0 - alpha_bars[1:] / alpha_bars[:-1], 0.0, 0.999)


# The linear bounds are those of Ho et al. (2020), section 4, made for hundreds
# of steps: with a few, hardly any noise is added (alpha_bar is 0.95 after 5).
_DEFAULT_BOUNDS = {"vp": (0.1, 10.0), "linear": (1e-4, 2e-2)}


def _fill_bounds(
  name: str, beta_start: float | None, beta_end: float | None
) -> tuple[float, float]:
  """Returns both bounds, checked, the missing ones at their default."""
  default_start, default_end = _DEFAULT_BOUNDS[name]
  start = default_start if beta_start is None else beta_start
  end = default_end if beta_end is None else beta_end
  if not 0.0 < start <= end < np.inf:
    raise ValueError(
      "Bounds must be finite with 0 < beta_start <= beta_end, got "
      f"{start} and {end} for the {name!r} schedule."
    )
  if name == "linear" and end >= 1.0:
    raise ValueError(
      f"beta_end must be below 1 for the 'linear' schedule, got {end}: it is "
      "the variance of the last step's noise."
    )
  return start, end


def make_betas(
  name: ScheduleName,
  num_steps: int,
  *,
  beta_start: float | None = None,
  beta_end: float | None = None,
) -> np.ndarray:
  """The noise levels of `schedules.make_schedule`, in float64.

  Args:
    name: as there, and so are the others.
    num_steps: the number of denoising steps T.
    beta_start: the bound of the least noisy step.
    beta_end: the bound of the noisiest step.

  Returns:
    beta_t [T].

  Raises:
    ValueError: as there.
  """
  if num_steps < 1:
    raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
  if name not in get_args(ScheduleName):
    raise ValueError(
      f"Unknown noise schedule {name!r}; one of {get_args(ScheduleName)}."
    )
  # In double precision: a product of many factors close to one.
  if name == "cosine":
    if beta_start is not None or beta_end is not None:
      raise ValueError(
        "The 'cosine' schedule has no bounds: leave beta_start and beta_end "
        f"out, got {beta_start} and {beta_end}."
      )
    betas = _cosine_betas(num_steps)
  else:
    bounds = _fill_bounds(name, beta_start, beta_end)
    if name == "vp":
      betas = _vp_betas(num_steps, *bounds)
    else:
      betas = np.linspace(*bounds, num_steps)
  alpha_bars = np.cumprod(1.0 - betas)
  limits = np.finfo(np.float32)
  if np.float32(alpha_bars[0]) == 1.0 or alpha_bars[-1] < limits.tiny:
    raise ValueError(
      f"alpha_bar of the {name!r} schedule goes from 1 - "
      f"{1.0 - alpha_bars[0]:.1e} to {alpha_bars[-1]:.1e}: float32 cannot hold "
      "that. Raise beta_start, or lower beta_end or num_steps."
    )
  return betas
