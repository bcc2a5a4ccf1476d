"""The Boltzmann limit of Langevin steps along alpha grad Q.

Psenka et al. (2024), eqs. 19 and 20: with the score Psi = alpha grad Q and
noise of covariance 2 I, small steps draw from the density proportional to
exp(alpha Q). Here Q has two maxima on [-1, 1], whose ends reflect.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_qsm import diffusion
from acme_qsm.experiments.records import plotting
from launchers.toy_problems import arguments
from launchers.toy_problems import results

STEP_SIZE = 0.002
"""h of a + h alpha grad Q + sqrt(2 h) z."""
NUM_BINS = 40
_NUM_POINTS = 200  # Of quadrature, in each bin.
# Panels of densities, at most: more would be too small to read.
_MAX_PANELS = 11


def q_value(action):
  """Q(a) = -4 (a^2 - 0.49)^2, of arrays of either library."""
  return -4.0 * (action**2 - 0.49) ** 2


def fold(action: jax.Array) -> jax.Array:
  """Reflects a line into [-1, 1], as often as it takes."""
  return 1.0 - jnp.abs((action + 1.0) % 4.0 - 2.0)


def sample(
  key: jax.Array, alpha: float | jax.Array, num_steps: int, num_samples: int
) -> jax.Array:
  """Draws actions by Langevin steps between reflecting walls.

  The library's sampler has no such walls, and needs none: a path reflected into
  [-1, 1] is a free one on the line, on which Q repeats itself in mirror images,
  seen through `fold`.

  Args:
    key: a PRNG key, consumed.
    alpha: scale of the gradient.
    num_steps: Langevin steps.
    num_samples: actions to draw.

  Returns:
    Actions [num_samples].
  """
  score = jax.grad(lambda action: jnp.sum(alpha * q_value(fold(action))))
  actions = diffusion.sample_langevin(
    key,
    score,
    jnp.full((num_steps,), 2.0 * STEP_SIZE),
    (num_samples, 1),
    clip=None,
  )
  return fold(actions)[:, 0]


class Density(NamedTuple):
  """A density on [-1, 1].

  Attributes:
    masses: [NUM_BINS] of bins of equal width.
    entropy: differential, in nats.
    outer_mass: the mass of |a| > 0.5.
  """

  masses: np.ndarray
  entropy: float
  outer_mass: float


def exact_density(alpha: float) -> Density:
  """The density proportional to exp(alpha Q), by the midpoint rule."""
  edges = np.linspace(-1.0, 1.0, NUM_BINS * _NUM_POINTS + 1)
  middles = (edges[:-1] + edges[1:]) / 2
  weights = np.exp(alpha * q_value(middles))
  masses = weights / np.sum(weights)
  width = edges[1] - edges[0]
  return Density(
    np.sum(masses.reshape(NUM_BINS, _NUM_POINTS), axis=1),
    float(-np.sum(masses * np.log(masses / width))),
    float(np.sum(masses[np.abs(middles) > 0.5])),
  )


def sampled_density(actions: np.ndarray) -> Density:
  """That of actions [N], by their histogram."""
  counts, edges = np.histogram(actions, NUM_BINS, (-1.0, 1.0))
  masses = counts / actions.size
  positive = masses[masses > 0]
  return Density(
    masses,
    float(-np.sum(positive * np.log(positive / (edges[1] - edges[0])))),
    float(np.mean(np.abs(actions) > 0.5)),
  )


def total_variation(first: Density, second: Density) -> float:
  """Half the sum of differences between bins' masses, from 0 to 1."""
  return float(np.sum(np.abs(first.masses - second.masses)) / 2)


def run(args: arguments.Boltzmann) -> results.Outcome:
  """Draws by Langevin steps for each alpha, and compares with exp(alpha Q)."""
  draw_actions = jax.jit(sample, static_argnums=(2, 3))
  key = jax.random.key(args.seed)
  sampled, exact = {}, {}
  for alpha in dict.fromkeys(float(alpha) for alpha in args.alphas):
    print(f"{args.num_steps:,} Langevin steps at alpha {alpha:g}", flush=True)
    actions = draw_actions(key, alpha, args.num_steps, args.num_samples)
    sampled[alpha] = sampled_density(np.asarray(actions))
    exact[alpha] = exact_density(alpha)
  rows = [
    {
      "alpha": alpha,
      "total_variation": total_variation(each, exact[alpha]),
      "entropy": each.entropy,
      "entropy_exact": exact[alpha].entropy,
      "outer_mass": each.outer_mass,
      "outer_mass_exact": exact[alpha].outer_mass,
    }
    for alpha, each in sampled.items()
  ]
  _, *names = rows[0]
  picture = draw([*sampled], [*sampled.values()], [*exact.values()])
  return results.Outcome(results.by_alpha(rows, *names), rows, picture)


def draw(
  alphas: Sequence[float], sampled: Sequence[Density], exact: Sequence[Density]
) -> Figure:
  """Draws each alpha's density beside the exact one, and their entropies."""
  shown = min(len(alphas), _MAX_PANELS)
  num_columns = min(shown + 1, 4)
  num_rows = -(-(shown + 1) // num_columns)
  figure = Figure(
    figsize=(max(7.0, 3.2 * num_columns), 2.9 * num_rows),
    layout="constrained",
  )
  for number in range(shown):
    panel = figure.add_subplot(num_rows, num_columns, number + 1)
    _draw_density(panel, sampled[number], exact[number])
    panel.set_title(rf"$\alpha$ = {alphas[number]:g}", fontsize=11)
    if number == 0:
      panel.legend(frameon=False, fontsize=8.5, loc="lower center")
  panel = figure.add_subplot(num_rows, num_columns, shown + 1)
  for densities, color, marker, name in (
    (sampled, plotting.COLORS[0], "o", "Langevin"),
    (exact, plotting.COLORS[1], "", "exact"),
  ):
    entropies = [each.entropy for each in densities]
    results.draw_sorted(
      *(panel, alphas, entropies), color=color, marker=marker, label=name
    )
  results.label(panel, r"$\alpha$")
  panel.set_title("entropy (nats)", fontsize=11)
  panel.legend(frameon=False, fontsize=8.5)
  if shown < len(alphas):
    figure.supxlabel(
      f"{len(alphas) - shown} more alphas are in result.json",
      fontsize=9,
      color=plotting.GREY,
    )
  return figure


def _draw_density(panel: Axes, sampled: Density, exact: Density) -> None:
  """Draws a histogram of what was drawn, and the exact density."""
  edges = np.linspace(-1.0, 1.0, NUM_BINS + 1)
  width = edges[1] - edges[0]
  panel.stairs(
    sampled.masses / width, edges, label="Langevin", **results.LEARNT
  )
  panel.plot(
    (edges[:-1] + edges[1:]) / 2,
    exact.masses / width,
    color=plotting.COLORS[1],
    linewidth=2,
    label=r"exp($\alpha$Q) / Z",
  )
  results.label(panel, "action", "density")
  panel.set_ylim(bottom=0.0)
