"""Two Gaussians in the plane (Ma et al., 2025, section 5.1, appendix C.1).

Reverse sampling score matching knows their density and has no sample of it;
denoising score matching has samples; Langevin steps have the true score. Do
they find both modes, and how much of the mass is in each?
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.types import Params
from launchers.toy_problems import arguments
from launchers.toy_problems import denoisers
from launchers.toy_problems import results

WEIGHTS = (0.8, 0.2)
MEANS = ((3.0, 3.0), (-3.0, -3.0))
"""Of two Gaussians of covariance I."""
BOUND = 6.0
"""Where noisy actions are drawn up to, and clean ones are clipped."""
SCHEDULE = {
  "name": "linear",
  "num_steps": 20,
  "beta_start": 0.001,
  "beta_end": 0.999,
}
BATCH_SIZE = 1024
LEARNING_RATE = 3e-4
LANGEVIN_STEPS = 20
# Not given in the paper: large enough that both modes are reached.
LANGEVIN_STEP_SIZE = 0.5
# How far from a mode's mean a sample still belongs to it.
_RADIUS = 3.0
# Fewer samples of a mode have no covariance to speak of.
_LEAST_SAMPLES = 10

NoisyActions = Callable[[jax.Array], jax.Array]
"""key -> noisy actions [BATCH_SIZE, 2], the same density at all steps."""


def draw_gaussian(key: jax.Array) -> jax.Array:
  """The paper's first density of noisy actions: N(0, 4 I)."""
  return 2.0 * jax.random.normal(key, (BATCH_SIZE, 2))


def draw_uniform(key: jax.Array) -> jax.Array:
  """The paper's second density of noisy actions: uniform on [-6, 6]^2."""
  return jax.random.uniform(key, (BATCH_SIZE, 2), minval=-BOUND, maxval=BOUND)


def log_density(action: jax.Array) -> jax.Array:
  """The mixture's log-density (eq. 35) of actions [..., 2]."""
  distances = jnp.sum(
    jnp.square(action[..., None, :] - jnp.asarray(MEANS)), axis=-1
  )
  return jax.nn.logsumexp(
    -0.5 * distances, b=jnp.asarray(WEIGHTS) / (2.0 * math.pi), axis=-1
  )


def draw_mixture(key: jax.Array, num_samples: int) -> jax.Array:
  """Draws from the mixture itself: [num_samples, 2]."""
  mode_key, noise_key = jax.random.split(key)
  first = jax.random.bernoulli(mode_key, WEIGHTS[0], (num_samples, 1))
  means = jnp.where(first, *(jnp.asarray(mean) for mean in MEANS))
  return means + jax.random.normal(noise_key, (num_samples, 2))


def make_schedule() -> diffusion.NoiseSchedule:
  """The paper's noise levels."""
  return diffusion.make_schedule(**SCHEDULE)


def make_denoiser() -> hk.Transformed:
  """The paper's network."""
  return denoisers.make_denoiser(2, (128, 128), jax.nn.leaky_relu)


def reverse_sampling_loss(
  draw_noisy: NoisyActions, bound: float | None
) -> denoisers.Loss:
  """Reverse sampling score matching, with one reverse sample (eq. 36).

  Weighted by the density at the clean action. In terms of the noise prediction,
  whose scale is the same at all steps: with the paper's own weight of 1 / (1 -
  alpha_bar_t), the least noisy step outdoes the others.

  Args:
    draw_noisy: draws noisy actions.
    bound: the largest size of a clean action's entries; None for none.

  Returns:
    The loss.
  """
  schedule, denoiser = make_schedule(), make_denoiser()

  def loss(params: Params, key: jax.Array) -> jax.Array:
    noisy_key, step_key, reverse_key = jax.random.split(key, 3)
    noisy_action = draw_noisy(noisy_key)
    step = jax.random.randint(step_key, (BATCH_SIZE,), 0, schedule.num_steps)
    clean_action, noise = diffusion.reverse_samples(
      reverse_key, schedule, noisy_action, step, 1, bound=bound
    )
    weight = losses.exponential_weights(log_density(clean_action), 1.0)
    noise_prediction = denoiser.apply(params, noisy_action, step)
    return jnp.mean(
      losses.reverse_sampling_score_matching_loss(
        noise_prediction, noise, weight
      )
    )

  return loss


def denoising_loss() -> denoisers.Loss:
  """Denoising score matching, on samples of the mixture."""
  schedule, denoiser = make_schedule(), make_denoiser()

  def loss(params: Params, key: jax.Array) -> jax.Array:
    data_key, step_key, noise_key = jax.random.split(key, 3)
    action = draw_mixture(data_key, BATCH_SIZE)
    step = jax.random.randint(step_key, (BATCH_SIZE,), 0, schedule.num_steps)
    noise = jax.random.normal(noise_key, action.shape)
    noisy_action = diffusion.add_noise(schedule, action, noise, step)
    noise_prediction = denoiser.apply(params, noisy_action, step)
    return jnp.mean(
      losses.weighted_denoising_loss(
        noise_prediction, noise, jnp.ones(BATCH_SIZE)
      )
    )

  return loss


LOSSES: Mapping[str, Callable[[], denoisers.Loss]] = {
  "rssm_gaussian": lambda: reverse_sampling_loss(draw_gaussian, None),
  "rssm_uniform": lambda: reverse_sampling_loss(draw_uniform, None),
  "rssm_uniform_truncated": lambda: reverse_sampling_loss(draw_uniform, BOUND),
  "denoising": denoising_loss,
}
"""By method, what makes its loss."""


def train(method: str, seed: int, num_steps: int) -> Params:
  """Trains a denoiser by one of `LOSSES`."""
  return denoisers.train(
    make_denoiser(), 2, LOSSES[method](), seed, num_steps, LEARNING_RATE
  )


def sample(
  params: Params,
  key: jax.Array,
  num_samples: int,
  clip: float | None = BOUND,
  variance: diffusion.PosteriorVariance = "fixed_small",
) -> jax.Array:
  """Draws from a denoiser: [num_samples, 2].

  Args:
    params: the denoiser's.
    key: a PRNG key, consumed.
    num_samples: samples to draw.
    clip: bound of the clean-action estimates. Without it samples explode: the
      last alpha_bar is 6e-11.
    variance: of the sampler's steps: see `diffusion.sample_posterior`.

  Returns:
    The samples.
  """
  denoiser = make_denoiser()
  return diffusion.sample_posterior(
    key,
    lambda action, step: denoiser.apply(params, action, step),
    make_schedule(),
    (num_samples, 2),
    clip=clip,
    variance=variance,
  )


def sample_langevin(key: jax.Array, num_samples: int) -> jax.Array:
  """Draws by Langevin steps with the true score from N(0, I)."""
  return diffusion.sample_langevin(
    key,
    jax.grad(lambda action: jnp.sum(log_density(action))),
    jnp.full((LANGEVIN_STEPS,), LANGEVIN_STEP_SIZE),
    (num_samples, 2),
    clip=None,
  )


def describe(samples: np.ndarray) -> dict[str, Any]:
  """Measures the modes of samples.

  A sample is of the mode on whose side it lies.

  Args:
    samples: [N, 2].

  Returns:
    Of each mode its weight, mean and standard deviation; the share of samples
    within 3 of their mode's mean; and `kl`, the divergence from the mixture of
    what is fitted to the samples, a Gaussian on each side: that of the weights,
    plus that of each Gaussian times its weight (sides do not overlap). None
    where a side has next to no samples.
  """
  sides = np.sum(samples, axis=-1) > 0
  found = {"weights": [], "means": [], "deviations": [], "share_near": 0.0}
  kl: float | None = 0.0
  for weight, mean, side in zip(WEIGHTS, MEANS, (sides, ~sides), strict=True):
    mine, share = samples[side], float(np.mean(side))
    enough = len(mine) >= _LEAST_SAMPLES
    found["weights"].append(share)
    found["means"].append(mine.mean(axis=0).tolist() if enough else None)
    found["deviations"].append(mine.std(axis=0).tolist() if enough else None)
    distance = np.linalg.norm(mine - np.asarray(mean), axis=-1)
    found["share_near"] += float(np.sum(distance < _RADIUS)) / len(samples)
    if kl is not None and enough:
      kl += share * (math.log(share / weight) + _gaussian_kl(mine, mean))
    else:
      kl = None
  return {**found, "kl": kl}


def _gaussian_kl(samples: np.ndarray, mean: tuple[float, float]) -> float:
  """KL divergence of a Gaussian fitted to samples from N(mean, I)."""
  covariance = np.cov(samples, rowvar=False)
  offset = samples.mean(axis=0) - np.asarray(mean)
  determinant = np.linalg.slogdet(covariance)[1]
  return float(
    0.5 * (np.trace(covariance) + offset @ offset - len(mean) - determinant)
  )


def run(args: arguments.Mixture) -> results.Outcome:
  """Trains a denoiser by each loss, and draws from all and by Langevin steps.

  From denoisers also with the sampler's large variance.
  """
  keys = denoisers.split_key(args.seed, len(LOSSES) + 2)
  samples = {"truth": draw_mixture(keys[-1], args.num_samples)}
  wide = {}
  for method, key in zip(LOSSES, keys, strict=False):
    print(f"Training {method}: {args.num_steps:,} steps", flush=True)
    params = train(method, args.seed, args.num_steps)
    samples[method] = sample(params, key, args.num_samples)
    drawn = sample(params, key, args.num_samples, variance="fixed_large")
    wide[method] = describe(np.asarray(drawn))
  print(f"{LANGEVIN_STEPS} Langevin steps", flush=True)
  samples["langevin"] = sample_langevin(keys[-2], args.num_samples)
  arrays = {method: np.asarray(each) for method, each in samples.items()}
  methods = {method: describe(each) for method, each in arrays.items()}
  rows = [
    {
      "method": method,
      "weight": each["weights"][0],
      "mean": _format(each["means"][0]),
      "other mean": _format(each["means"][1]),
      "near": each["share_near"],
      "KL": each["kl"],
      "KL, fixed_large": wide[method]["kl"] if method in wide else "-",
    }
    for method, each in methods.items()
  ]
  exact = {"weights": list(WEIGHTS), "means": [list(mean) for mean in MEANS]}
  numbers = {"exact": exact, "methods": methods, "fixed_large": wide}
  return results.Outcome(numbers, rows, draw(arrays, methods))


def _format(mean: list[float] | None) -> str:
  return "-" if mean is None else " ".join(f"{each:.2f}" for each in mean)


_TITLES = {
  "truth": "truth",
  "rssm_gaussian": "RSSM, noisy actions N(0, 4I)",
  "rssm_uniform": "RSSM, uniform on [-6, 6]²",
  "rssm_uniform_truncated": "RSSM, uniform, truncated reverse samples",
  "denoising": "denoising score matching",
  "langevin": f"Langevin, {LANGEVIN_STEPS} steps, true score",
}


def draw(
  samples: Mapping[str, np.ndarray], methods: Mapping[str, Mapping[str, Any]]
) -> Figure:
  """Draws each method's samples [N, 2], described, over the mixture."""
  figure = Figure(figsize=(11, 7.6), layout="constrained")
  axis = np.linspace(-7.0, 7.0, 141)
  grid = np.stack(np.meshgrid(axis, axis), axis=-1)
  density = np.exp(np.asarray(log_density(jnp.asarray(grid))))
  for number, (method, each) in enumerate(samples.items()):
    panel = figure.add_subplot(2, 3, number + 1)
    levels = (0.003, 0.012, 0.05)
    results.draw_points(
      panel, each, axis, density, levels, s=3, rasterized=True
    )
    panel.set_title(_TITLES[method], loc="left", fontsize=10.5)
    bold: Any = {"fontsize": 13, "fontweight": "bold"}
    first, second = methods[method]["weights"]
    kl = methods[method]["kl"]
    for x, y, text, side, how in (
      (0.96, 0.95, f"{first:.0%}", "right", {"va": "top", **bold}),
      (0.04, 0.05, f"{second:.0%}", "left", {"va": "bottom", **bold}),
      (0.96, 0.05, "" if kl is None else f"KL {kl:.3f}", "right", {}),
    ):
      panel.text(x, y, text, transform=panel.transAxes, ha=side, **how)
    ticks = [-6, -3, 0, 3, 6]
    panel.set(xlim=(-7, 7), ylim=(-7, 7), xticks=ticks, yticks=ticks)
  return figure
