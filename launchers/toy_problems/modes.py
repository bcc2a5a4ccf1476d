"""Policies of several modes from the gradient of Q alone.

After Psenka et al. (2024, Figure 4), with a Q that is known, and no
observation: two bandits of one dimension whose denoiser is matched to -alpha
grad Q as in the paper, and a pair of one and of two dimensions with the
library's Boltzmann target, of which the density that many denoising steps draw
from is known.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.experiments.records import plotting
from acme_qsm.types import Params
from launchers.toy_problems import arguments
from launchers.toy_problems import denoisers
from launchers.toy_problems import results

BATCH_SIZE = 256
LEARNING_RATE = 3e-3
_NUM_BINS = 60
PAIR = np.array([[-0.6], [0.6]])
CORNERS = np.array([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]])
"""Means of the Gaussians that exp(Q) is made of, of one and two dimensions."""
DEVIATION = 0.25
"""Their standard deviation."""


def quadratic(action: jax.Array) -> jax.Array:
  """One mode: Q = -(a - 0.3)^2 / 2, of an action [1]."""
  return -0.5 * jnp.sum(jnp.square(action - 0.3))


def bimodal(action: jax.Array) -> jax.Array:
  """Two modes at -0.7 and 0.7: Q = -(a^2 - 0.49)^2, of an action [1]."""
  return -jnp.sum(jnp.square(jnp.square(action) - 0.49))


def gaussians(centers: np.ndarray, action: jax.Array) -> jax.Array:
  """Several modes: exp(Q) is a sum of Gaussians.

  Args:
    centers: [N, A] their means.
    action: [A].

  Returns:
    Q [].
  """
  distances = jnp.sum(jnp.square(action - centers), axis=-1)
  return jax.nn.logsumexp(-0.5 * distances / DEVIATION**2)


@dataclasses.dataclass(frozen=True)
class Bandit:
  """A Q-function, and how a policy is made of it.

  Attributes:
    q_value: an action [A] -> Q [].
    action_size: A.
    scale: of the gradient: alpha, or kappa where the target is the Boltzmann
      one.
    num_denoising_steps: T.
    boltzmann: whether the target is the Boltzmann one.
  """

  q_value: Callable[[jax.Array], jax.Array]
  action_size: int
  scale: float
  num_denoising_steps: int
  boltzmann: bool

  @property
  def schedule(self) -> diffusion.NoiseSchedule:
    """The noise levels."""
    return diffusion.make_schedule("vp", self.num_denoising_steps)

  @property
  def denoiser(self) -> hk.Transformed:
    """The network."""
    return denoisers.make_denoiser(self.action_size, (64, 64), jax.nn.mish)

  def loss(
    self, prediction: jax.Array, noisy_action: jax.Array, step: jax.Array
  ) -> jax.Array:
    """The loss [B] of noise predictions [B, A] at noisy actions [B, A]."""
    gradient = jax.vmap(jax.grad(self.q_value))(noisy_action)
    if not self.boltzmann:
      return losses.q_score_matching_loss(prediction, gradient, self.scale)
    alpha_bar = self.schedule.alpha_bars[step]
    return losses.boltzmann_score_matching_loss(
      prediction, gradient, noisy_action, alpha_bar, self.scale
    )

  def exact_noise(self, noisy_action: jax.Array, step: jax.Array) -> jax.Array:
    """The prediction [B, A] whose loss is 0, for steps [B] or []."""
    gradient = self.scale * jax.vmap(jax.grad(self.q_value))(noisy_action)
    if not self.boltzmann:
      return -gradient
    step = jnp.broadcast_to(step, noisy_action.shape[:1])
    alpha_bar = self.schedule.alpha_bars[step][:, None]
    return jnp.sqrt(1.0 - alpha_bar) * (noisy_action - gradient)


BANDITS: Mapping[str, Bandit] = {
  "quadratic": Bandit(quadratic, 1, 1.0, 5, False),
  "bimodal": Bandit(bimodal, 1, 50.0, 5, False),
  # kappa = 1/2, so that many steps draw from exp(Q) N(0, I).
  "pair": Bandit(functools.partial(gaussians, PAIR), 1, 0.5, 20, True),
  "corners": Bandit(functools.partial(gaussians, CORNERS), 2, 0.5, 20, True),
}


def draw_noisy_actions(
  bandit: Bandit, key: jax.Array, num_actions: int
) -> tuple[jax.Array, jax.Array]:
  """Uniform actions, as of a replay, noised to random steps: [B, A], [B]."""
  action_key, noise_key, step_key = jax.random.split(key, 3)
  shape = (num_actions, bandit.action_size)
  action = jax.random.uniform(action_key, shape, minval=-1.0, maxval=1.0)
  step = jax.random.randint(
    step_key, (num_actions,), 0, bandit.num_denoising_steps
  )
  noise = jax.random.normal(noise_key, shape)
  return diffusion.add_noise(bandit.schedule, action, noise, step), step


def train(bandit: Bandit, seed: int, num_steps: int) -> Params:
  """Trains a bandit's denoiser."""

  def loss(params: Params, key: jax.Array) -> jax.Array:
    noisy_action, step = draw_noisy_actions(bandit, key, BATCH_SIZE)
    prediction = bandit.denoiser.apply(params, noisy_action, step)
    return jnp.mean(bandit.loss(prediction, noisy_action, step))

  # The rate falls to zero, so that no noise of the last steps is left.
  rate = optax.cosine_decay_schedule(LEARNING_RATE, num_steps)
  return denoisers.train(
    bandit.denoiser, bandit.action_size, loss, seed, num_steps, rate
  )


def relative_error(bandit: Bandit, params: Params, key: jax.Array) -> float:
  """Root mean square error of noise predictions, in that of exact ones."""
  noisy_action, step = draw_noisy_actions(bandit, key, 10_000)
  prediction = bandit.denoiser.apply(params, noisy_action, step)
  exact = bandit.exact_noise(noisy_action, step)
  error = jnp.mean(jnp.square(prediction - exact))
  return float(jnp.sqrt(error / jnp.mean(jnp.square(exact))))


def sample(
  bandit: Bandit,
  denoise: diffusion.DenoiseFn,
  key: jax.Array,
  num_samples: int,
) -> np.ndarray:
  """Draws actions [num_samples, A] with a denoiser or with `exact_noise`."""
  draw_actions = jax.jit(
    lambda key: diffusion.sample(
      key, denoise, bandit.schedule, (num_samples, bandit.action_size)
    )
  )
  return np.asarray(draw_actions(key))


def mode_masses(actions: np.ndarray) -> list[float]:
  """Shares of actions by mode.

  Args:
    actions: [N, 1], with a mode on either side of 0; or [N, 2], with one in
      each quadrant.

  Returns:
    Their shares: those below and above 0; or in the order of `CORNERS`.
  """
  centers = PAIR if actions.shape[1] == 1 else CORNERS
  return [
    float(np.mean(np.all(actions * np.sign(center) > 0, axis=-1)))
    for center in centers
  ]


def exact_density(centers: np.ndarray, actions: np.ndarray) -> np.ndarray:
  """The density proportional to exp(Q) N(0, I) of `gaussians`.

  A product of Gaussians is one: each is drawn in to c / (1 + s^2), with
  variance s^2 / (1 + s^2).

  Args:
    centers: [N, A] the Gaussians' means, all as far from 0.
    actions: [..., A].

  Returns:
    The density [...].
  """
  shrink = 1 / (1 + DEVIATION**2)
  variance = DEVIATION**2 * shrink
  offsets = actions[..., None, :] - shrink * centers
  modes = np.exp(-0.5 * np.sum(offsets**2, axis=-1) / variance)
  scale = (2 * np.pi * variance) ** (actions.shape[-1] / 2)
  return np.mean(modes, axis=-1) / scale


def run(args: arguments.Modes) -> results.Outcome:
  """Trains a denoiser on each bandit, and draws from it and from exact ones."""
  numbers: dict[str, Any] = {}
  actions: dict[str, dict[str, np.ndarray]] = {}
  error_key, learnt_key, exact_key = denoisers.split_key(args.seed, 3)
  for name, bandit in BANDITS.items():
    print(f"Training {name}: {args.num_steps:,} steps", flush=True)
    params = train(bandit, args.seed, args.num_steps)
    # Bound now: both names go on to the next bandit.
    denoise = functools.partial(bandit.denoiser.apply, params)
    actions[name] = {
      "learnt": sample(bandit, denoise, learnt_key, args.num_samples),
      "exact": sample(bandit, bandit.exact_noise, exact_key, args.num_samples),
    }
    numbers[name] = {
      "relative_error": relative_error(bandit, params, error_key),
      **{which: _describe(each) for which, each in actions[name].items()},
    }
  rows = [
    {
      "bandit": name,
      "relative error": each["relative_error"],
      "masses": _format(each["learnt"]["masses"]),
      "exact masses": _format(each["exact"]["masses"]),
      "deviation": _format(each["learnt"]["deviation"]),
      "exact deviation": _format(each["exact"]["deviation"]),
    }
    for name, each in numbers.items()
  ]
  return results.Outcome({"bandits": numbers}, rows, draw(actions))


def _describe(actions: np.ndarray) -> dict[str, list[float]]:
  return {
    "masses": mode_masses(actions),
    "mean": actions.mean(axis=0).tolist(),
    "deviation": actions.std(axis=0).tolist(),
  }


def _format(values: list[float]) -> str:
  return " ".join(f"{value:.3f}" for value in values)


def draw(actions: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
  """Draws histograms of one dimension, and two as points over contours.

  Args:
    actions: [N, A] by bandit: "learnt", and of the "exact" noise prediction.
  """
  figure = Figure(figsize=(10, 8), layout="constrained")
  titles = {
    "quadratic": r"Q = -(a - 0.3)² / 2; target -$\alpha$Q', $\alpha$ = 1",
    "bimodal": r"Q = -(a² - 0.49)²; target -$\alpha$Q', $\alpha$ = 50",
    "pair": "exp(Q): two Gaussians; Boltzmann target",
    "corners": "exp(Q): four Gaussians; Boltzmann target",
  }
  for number, (name, title) in enumerate(titles.items()):
    panel = figure.add_subplot(2, 2, number + 1)
    panel.set_title(title, loc="left", fontsize=10.5)
    if name == "corners":
      _draw_points(panel, actions[name]["learnt"])
    else:
      _draw_histograms(panel, actions[name])
    if name == "pair":
      axis = np.linspace(-1.0, 1.0, 401)
      panel.plot(
        axis,
        exact_density(PAIR, axis[:, None]),
        color=plotting.COLORS[6],
        linestyle="--",
        label="limit of many steps",
      )
    if name != "corners":
      panel.legend(frameon=False, loc="upper center", fontsize=9)
  return figure


def _draw_histograms(panel: Axes, actions: Mapping[str, np.ndarray]) -> None:
  """Draws the actions' histogram, and that with the exact prediction."""
  edges = np.linspace(-1.0, 1.0, _NUM_BINS + 1)
  for which, style in (
    ("learnt", results.LEARNT),
    ("exact", {"color": plotting.COLORS[1], "linewidth": 1.6}),
  ):
    density, _ = np.histogram(actions[which][:, 0], edges, density=True)
    label = "policy" if which == "learnt" else "exact noise prediction"
    panel.stairs(density, edges, label=label, **style)
  results.label(panel, "action", "density")
  # Room for the legend.
  panel.set_ylim(top=1.3 * panel.get_ylim()[1])


def _draw_points(panel: Axes, actions: np.ndarray) -> None:
  """Draws actions of two dimensions over the exact density's contours."""
  axis = np.linspace(-1.1, 1.1, 221)
  density = exact_density(CORNERS, np.stack(np.meshgrid(axis, axis), axis=-1))
  levels = np.max(density) * np.asarray([0.2, 0.6])
  results.draw_points(
    panel, actions, axis, density, levels.tolist(), s=4, label="policy"
  )
  panel.plot([], [], color=plotting.COLORS[1], label="limit of many steps")
  for center, mass in zip(CORNERS, mode_masses(actions), strict=True):
    panel.text(
      0.9 * np.sign(center[0]),
      0.95 * np.sign(center[1]),
      f"{mass:.0%}",
      ha="center",
      va="center",
      fontweight="bold",
    )
  panel.legend(
    loc="upper center",
    bbox_to_anchor=(0.5, -0.15),
    ncols=2,
    frameon=False,
    fontsize=9,
    markerscale=4,
  )
