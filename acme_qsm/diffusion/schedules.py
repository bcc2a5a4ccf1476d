"""Noise schedules and the forward process of a diffusion.

Index t = 0 is the least noisy denoising step (the last one of the reverse
process), t = T - 1 the noisiest. With noise levels beta_t, alpha_t = 1 - beta_t
and alpha_bar_t = prod_{l <= t} alpha_l, the forward process of Ho et al. (2020,
https://arxiv.org/abs/2006.11239) is

  a_t = sqrt(alpha_bar_t) a_0 + sqrt(1 - alpha_bar_t) eps,   eps ~ N(0, I).

A denoiser's output is the noise prediction eps; the score it stands for is
-eps / sqrt(1 - alpha_bar_t).
"""

from typing import get_args
from typing import Literal
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

ScheduleName = Literal["vp", "cosine", "linear"]


class NoiseSchedule(NamedTuple):
  """Noise levels per denoising step, index 0 the least noisy.

  Attributes:
    betas: [T] variance of the noise added by step t, in (0, 1).
    alphas: [T] 1 - betas.
    alpha_bars: [T] cumulative product of alphas: the share of the action's
      variance left after step t.
  """

  betas: jax.Array
  alphas: jax.Array
  alpha_bars: jax.Array

  @property
  def num_steps(self) -> int:
    """The number of denoising steps T."""
    return self.betas.shape[0]


def _vp_betas(num_steps: int) -> np.ndarray:
  # The variance-preserving SDE of Song et al. (2021), beta from 0.1 to 10,
  # discretised as in Xiao et al. (2022), https://arxiv.org/abs/2112.07804.
  t = np.arange(1, num_steps + 1)
  beta_min, beta_max = 0.1, 10.0
  return 1.0 - np.exp(
    -beta_min / num_steps
    - 0.5 * (beta_max - beta_min) * (2 * t - 1) / num_steps**2
  )


def _cosine_betas(num_steps: int) -> np.ndarray:
  # Nichol & Dhariwal (2021), eq. 17, https://arxiv.org/abs/2102.09672.
  offset = 0.008
  t = np.arange(num_steps + 1) / num_steps
  alpha_bars = np.cos((t + offset) / (1 + offset) * np.pi / 2) ** 2
  return np.clip(1.0 - alpha_bars[1:] / alpha_bars[:-1], 0.0, 0.999)


def _linear_betas(num_steps: int) -> np.ndarray:
  # Ho et al. (2020), section 4. Made for hundreds of steps: with a few, hardly
  # any noise is added (alpha_bar is 0.95 after 5).
  return np.linspace(1e-4, 2e-2, num_steps)


def make_schedule(name: ScheduleName, num_steps: int) -> NoiseSchedule:
  """Makes a noise schedule.

  Args:
    name: "vp" (variance preserving; Song et al., 2021), "cosine" (Nichol &
      Dhariwal, 2021) or "linear" (Ho et al., 2020).
    num_steps: the number of denoising steps T, at least 1.

  Returns:
    The schedule, each array of shape [T] and dtype float32.

  Raises:
    ValueError: if the name is unknown or num_steps is not positive.

  Example:
    >>> [round(float(x), 3) for x in make_schedule("vp", 5).alpha_bars]
    [0.804, 0.435, 0.159, 0.039, 0.006]
  """
  if num_steps < 1:
    raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
  makers = {"vp": _vp_betas, "cosine": _cosine_betas, "linear": _linear_betas}
  if name not in makers:
    raise ValueError(
      f"Unknown noise schedule {name!r}; one of {get_args(ScheduleName)}."
    )
  # In double precision: a product of many factors close to one.
  betas = makers[name](num_steps)
  return NoiseSchedule(
    betas=jnp.asarray(betas, jnp.float32),
    alphas=jnp.asarray(1.0 - betas, jnp.float32),
    alpha_bars=jnp.asarray(np.cumprod(1.0 - betas), jnp.float32),
  )


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
  """Appends axes to values ([] or [B]) until they broadcast against like."""
  return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def add_noise(
  schedule: NoiseSchedule,
  action: jax.Array,
  noise: jax.Array,
  step: jax.Array,
) -> jax.Array:
  """Noises actions: sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) eps.

  Ho et al. (2020), eq. 4.

  Args:
    schedule: the noise schedule.
    action: [B, A] clean actions.
    noise: [B, A] standard normal noise eps.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.

  Returns:
    The noisy actions [B, A].
  """
  chex.assert_equal_shape([action, noise])
  step = jnp.asarray(step)
  chex.assert_type(step, int)
  alpha_bar = per_example(schedule.alpha_bars[step], action)
  return jnp.sqrt(alpha_bar) * action + jnp.sqrt(1.0 - alpha_bar) * noise
