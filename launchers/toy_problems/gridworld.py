"""Q-score matching's reduction to a gridworld (Psenka et al., 2024, 4.3).

A 5 x 5 grid with a goal in the corner. The next cell's being the goal is
rewarded with 1, the goal is no end, a move into a wall stays. Everything is
exact: policies are evaluated by a linear system in double precision.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_qsm.experiments.records import plotting
from launchers.toy_problems import arguments
from launchers.toy_problems import results

SIZE = 5
GOAL = (SIZE - 1, SIZE - 1)
DISCOUNT = 0.9
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""Left, right, up and down: rows and columns."""
ALPHA_SHOWN = 2.0
# Exactly tied moves differ by rounding, of which a large alpha would make a
# choice; moves that are not tied differ by far more than this.
_TIE = 1e-9
# Where a policy's values change by less it has converged.
_TOLERANCE = 1e-8


class Iterate(NamedTuple):
  """A policy and its values, cells in reading order.

  Attributes:
    policy: [S, 4] probabilities of the moves.
    q_values: [S, 4] Q of the policy.
    values: [S] V of the policy.
  """

  policy: np.ndarray
  q_values: np.ndarray
  values: np.ndarray


def next_cells() -> np.ndarray:
  """The cell that each move leads to: [S, 4] indices."""
  cells = np.stack(np.divmod(np.arange(SIZE**2), SIZE), axis=-1)
  moved = np.clip(cells[:, None] + np.asarray(MOVES), 0, SIZE - 1)
  return moved[..., 0] * SIZE + moved[..., 1]


def evaluate(policy: np.ndarray) -> Iterate:
  """Evaluates a policy: its ordinary Q, not the soft one.

  Args:
    policy: [S, 4] probabilities of the moves.

  Returns:
    The policy with its values.
  """
  cells = next_cells()
  reward = (cells == GOAL[0] * SIZE + GOAL[1]).astype(float)
  transition = np.zeros((SIZE**2, SIZE**2))
  np.add.at(transition, (np.arange(SIZE**2)[:, None], cells), policy)
  values = np.linalg.solve(
    np.eye(SIZE**2) - DISCOUNT * transition, np.sum(policy * reward, axis=-1)
  )
  return Iterate(policy, reward + DISCOUNT * values[cells], values)


def best_moves(q_values: np.ndarray) -> np.ndarray:
  """Which moves have the highest value, all that tie: [S, 4] bools."""
  return q_values >= np.max(q_values, axis=-1, keepdims=True) - _TIE


def improve(q_values: np.ndarray, alpha: float) -> np.ndarray:
  """The next policy: softmax of alpha Q (eq. 21).

  Args:
    q_values: [S, 4].
    alpha: the scale, at least 0.

  Returns:
    Probabilities [S, 4].
  """
  advantage = q_values - np.max(q_values, axis=-1, keepdims=True)
  advantage = np.where(best_moves(q_values), 0.0, advantage)
  with np.errstate(over="ignore"):  # exp(-inf) is what is meant.
    weights = np.exp(alpha * advantage)
  return weights / np.sum(weights, axis=-1, keepdims=True)


def iterate(alpha: float, num_updates: int) -> list[Iterate]:
  """Policies from the uniform one on.

  Args:
    alpha: the scale, at least 0.
    num_updates: updates at most; they end where V stays as it is.

  Returns:
    The uniform policy and that of each update, one at least.
  """
  iterates = [evaluate(np.full((SIZE**2, len(MOVES)), 1 / len(MOVES)))]
  for _ in range(num_updates):
    iterates.append(evaluate(improve(iterates[-1].q_values, alpha)))
    change = np.abs(iterates[-1].values - iterates[-2].values)
    if np.max(change) < _TOLERANCE:
      break
  return iterates


def entropy(policy: np.ndarray) -> float:
  """Mean entropy of a policy over cells, in nats."""
  logarithm = np.log(np.where(policy > 0, policy, 1.0))
  return float(-np.mean(np.sum(policy * logarithm, axis=-1)))


def greedy_limit() -> Iterate:
  """Where alpha goes to infinity: best moves alone, all that tie alike."""
  best = np.ones((SIZE**2, len(MOVES)), bool)
  while True:
    found = evaluate(best / np.sum(best, axis=-1, keepdims=True))
    better = best_moves(found.q_values)
    if np.array_equal(better, best):
      return found
    best = better


def run(args: arguments.Gridworld) -> results.Outcome:
  """Iterates policies for each alpha, and compares with the greedy limit."""
  alphas = list(dict.fromkeys(float(alpha) for alpha in args.alphas))
  runs = [iterate(alpha, args.num_updates) for alpha in alphas]
  limit = greedy_limit()
  rows = [
    {
      "alpha": alpha,
      "entropy": entropy(run[-1].policy),
      "value_after_one_update": float(run[1].values.mean()),
      "value": float(run[-1].values.mean()),
      "updates": len(run) - 1,
    }
    for alpha, run in zip(alphas, runs, strict=True)
  ]
  floor = entropy(limit.policy)
  numbers = {
    **results.by_alpha(rows, "entropy"),
    "entropy_floor": floor,
    **results.by_alpha(rows, "value", "value_after_one_update"),
    "value_uniform": float(runs[0][0].values.mean()),
    "value_greedy": float(limit.values.mean()),
    **results.by_alpha(rows, "updates"),
  }
  entropies = [row["entropy"] for row in rows]
  picture = draw(iterate(ALPHA_SHOWN, 2)[:3], alphas, entropies, floor)
  return results.Outcome(numbers, rows, picture)


def draw(
  iterates: Sequence[Iterate],
  alphas: Sequence[float],
  entropies: Sequence[float],
  floor: float,
) -> Figure:
  """Draws the paper's Figure 2.

  Args:
    iterates: the uniform policy and the first two after it, at alpha = 2.
    alphas: the scales.
    entropies: the converged policies' entropies.
    floor: the entropy that they go down to.
  """
  figure = Figure(figsize=(11, 8), layout="constrained")
  grid = figure.add_gridspec(2, len(iterates), height_ratios=(1.25, 1.0))
  most = max(float(each.values.max()) for each in iterates)
  panels, image = [], None
  for number, each in enumerate(iterates):
    panel = figure.add_subplot(grid[0, number])
    image = _draw_grid(panel, each, most)
    name = "uniform start"
    if number > 0:
      name = rf"update {number}, $\alpha$ = {ALPHA_SHOWN:g}"
    panel.set_title(
      f"{name}: mean return {each.values.mean():.2f}", fontsize=11
    )
    panels.append(panel)
  if image is not None:
    figure.colorbar(image, ax=panels, label="expected return", shrink=0.8)
  for color, label in (
    (plotting.COLORS[1], "argmax Q: direction of ∇Q"),
    (plotting.COLORS[6], "argmax log π: direction of ∇log π"),
  ):
    panels[0].plot([], [], color=color, linewidth=4, label=label)
  figure.legend(
    *panels[0].get_legend_handles_labels(),
    loc="outside upper center",
    ncols=2,
    frameon=False,
  )
  panel = figure.add_subplot(grid[1, :])
  _draw_entropies(panel, alphas, entropies, floor)
  return figure


def _draw_grid(panel: Axes, each: Iterate, most: float):
  """Draws a policy: colours for values, arrows for the best moves."""
  image = panel.imshow(
    each.values.reshape(SIZE, SIZE),
    cmap="Blues",
    vmin=0.0,
    vmax=most,
    # Black arrows are to be seen on the darkest cell.
    alpha=0.7,
  )
  cells = np.stack(np.divmod(np.arange(SIZE**2), SIZE), axis=-1)
  for which, color, shift in (
    (each.q_values, plotting.COLORS[1], -0.1),
    (each.policy, plotting.COLORS[6], 0.1),
  ):
    best = best_moves(which)
    for cell, row in zip(cells, best, strict=True):
      # Where all moves tie there is no direction.
      for move in np.flatnonzero(row) if not row.all() else ():
        _draw_arrow(panel, cell, MOVES[move], shift, color)
  panel.plot(
    GOAL[1], GOAL[0], marker="*", markersize=13, color="white", mec="black"
  )
  panel.set_xticks([])
  panel.set_yticks([])
  return image


def _draw_arrow(panel, cell, move, shift: float, color: str) -> None:
  """Draws a move in its cell, beside the middle."""
  row, column = cell[0] + shift * move[1], cell[1] - shift * move[0]
  panel.annotate(
    "",
    (column + 0.45 * move[1], row + 0.45 * move[0]),
    (column + 0.16 * move[1], row + 0.16 * move[0]),
    arrowprops=dict(
      arrowstyle="-|>", color=color, linewidth=1.8, shrinkA=0, shrinkB=0
    ),
  )


def _draw_entropies(
  panel: Axes,
  alphas: Sequence[float],
  entropies: Sequence[float],
  floor: float,
) -> None:
  """Draws entropy against alpha."""
  most = np.log(len(MOVES))
  for level, style, name in (
    (most, ":", f"uniform: log 4 = {most:.3f}"),
    (floor, "--", rf"limit of large $\alpha$: {floor:.3f}"),
  ):
    panel.axhline(level, color=plotting.GREY, linestyle=style, label=name)
  results.draw_sorted(
    panel, alphas, entropies, color=plotting.COLORS[0], marker="o"
  )
  positive = [alpha for alpha in alphas if alpha > 0]
  if positive:
    panel.set_xscale("symlog", base=2, linthresh=min(positive))
  ticks = sorted(alphas)
  # Of a long list some would run into one another.
  ticks = ticks[:: -(-len(ticks) // 12)]
  panel.set_xticks(ticks, labels=[f"{alpha:g}" for alpha in ticks])
  panel.minorticks_off()
  results.label(panel, r"$\alpha$", "entropy of the last policy (nats)")
  panel.set_ylim(bottom=0.0)
  panel.legend(frameon=False, loc="lower left")
