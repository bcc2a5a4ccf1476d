"""One denoising step of the reverse process: the Gaussian it draws from.

Samplers, their chains and the chains' log-probabilities share this.
"""

from typing import get_args
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from acme_qsm.diffusion import schedules
from acme_qsm.diffusion.betas import PosteriorVariance
from acme_qsm.diffusion.betas import TransitionName
from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import per_example


class Levels(NamedTuple):
  """What a denoising step needs of the schedule, per step or example.

  Attributes:
    beta: variance of the noise that the forward step added.
    alpha: 1 - beta.
    alpha_bar: the share of the action's variance in what enters the step.
    next_alpha_bar: the same in what leaves it; 1 at t = 0.
  """

  beta: jax.Array
  alpha: jax.Array
  alpha_bar: jax.Array
  next_alpha_bar: jax.Array


def make_levels(schedule: NoiseSchedule) -> Levels:
  """Returns the levels of all denoising steps, each of shape [T]."""
  one = jnp.ones((1,), schedule.alpha_bars.dtype)
  return Levels(*schedule, jnp.concatenate([one, schedule.alpha_bars[:-1]]))


def transition_mean(
  levels: Levels,
  noise_prediction: jax.Array,
  noisy_action: jax.Array,
  name: TransitionName,
  clip: float | None,
) -> jax.Array:
  """The mean of `transition`, of levels that broadcast against the actions."""
  beta, alpha, alpha_bar, next_alpha_bar = levels
  if name == "noise_mean":
    mean = noisy_action - beta / jnp.sqrt(1.0 - alpha_bar) * noise_prediction
    return mean / jnp.sqrt(alpha)
  clean = schedules.estimate_clean(alpha_bar, noisy_action, noise_prediction)
  if clip is not None:
    clean = jnp.clip(clean, -clip, clip)
  # As in `transition`, but exactly the clean action at t = 0 in float32 too.
  share = _noise_share(levels)
  return jnp.sqrt(next_alpha_bar) * clean + jnp.sqrt(alpha) * share * (
    noisy_action - jnp.sqrt(alpha_bar) * clean
  )


def transition_std(
  levels: Levels,
  name: TransitionName,
  posterior_variance: PosteriorVariance = "fixed_small",
) -> jax.Array:
  """The standard deviation of `transition`: depends on the levels alone."""
  if name == "noise_mean" or posterior_variance == "fixed_large":
    return jnp.where(levels.next_alpha_bar == 1.0, 0.0, jnp.sqrt(levels.beta))
  return jnp.sqrt(levels.beta * _noise_share(levels))


def _noise_share(levels: Levels) -> jax.Array:
  # Of the noise's variance, what the step leaves: 0 at t = 0.
  return (1.0 - levels.next_alpha_bar) / (1.0 - levels.alpha_bar)


def transition(
  schedule: NoiseSchedule,
  noise_prediction: jax.Array,
  noisy_action: jax.Array,
  step: jax.Array,
  *,
  name: TransitionName = "noise_mean",
  posterior_variance: PosteriorVariance = "fixed_small",
  clip: float | None = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Mean and standard deviation of what a denoising step draws.

  "noise_mean" (Ho et al., 2020, algorithm 2), which clips nothing here:

    mean = (a_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t)
    std = sqrt(beta_t), and 0 at t = 0.

  "posterior" (Ho et al., 2020, eqs. 6, 7 and 15) estimates the clean action,
  clips it, and draws from q(a_{t-1} | a_t, a_0) (alpha_bar_{-1} = 1):

    a_0 = clip((a_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t))
    mean = beta_t sqrt(alpha_bar_{t-1}) / (1 - alpha_bar_t) a_0
           + (1 - alpha_bar_{t-1}) sqrt(alpha_t) / (1 - alpha_bar_t) a_t
    std = sqrt(beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)).

  Where nothing is clipped, both means are the same. That variance is right
  where the clean action is certain, and too small by the clean action's own
  variance given a_t; beta_t ("fixed_large") is right for clean actions from
  N(0, I), which are the least certain (Ho et al., 2020, section 3.2). See
  `sample_posterior` for what both make of a policy.

  Args:
    schedule: the noise schedule.
    noise_prediction: [B, A] the denoiser's output eps.
    noisy_action: [B, A] the noisy actions a_t.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.
    name: which Gaussian.
    posterior_variance: "fixed_small": as above. "fixed_large": that of
      "posterior" too is beta_t, and 0 at t = 0.
    clip: bound of the estimated clean action of "posterior"; None for none.

  Returns:
    The mean [B, A] and the standard deviation [B, 1] or [1, 1].

  Raises:
    ValueError: if a name is unknown.
  """
  check_name(name, posterior_variance)
  chex.assert_equal_shape([noise_prediction, noisy_action])
  step = jnp.asarray(step)
  chex.assert_type(step, int)
  levels = jax.tree.map(
    lambda level: per_example(level[step], noisy_action), make_levels(schedule)
  )
  mean = transition_mean(levels, noise_prediction, noisy_action, name, clip)
  return mean, transition_std(levels, name, posterior_variance)


def check_name(name: str, posterior_variance: str = "fixed_small") -> None:
  """Raises a ValueError where there is no transition of those names."""
  if name not in get_args(TransitionName):
    raise ValueError(
      f"Unknown transition {name!r}; one of {get_args(TransitionName)}."
    )
  if posterior_variance not in get_args(PosteriorVariance):
    raise ValueError(
      f"Unknown posterior_variance {posterior_variance!r}; one of "
      f"{get_args(PosteriorVariance)}."
    )


def clip_latent(
  action: jax.Array, name: TransitionName, clip: float | None
) -> jax.Array:
  """What enters the next denoising step: "noise_mean" clips, "posterior" not.

  Args:
    action: [..., A] what a step has drawn.
    name: which step.
    clip: the bound; None for none.

  Returns:
    The actions [..., A].
  """
  if clip is None or name != "noise_mean":
    return action
  return jnp.clip(action, -clip, clip)
