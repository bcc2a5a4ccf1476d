"""How sampling keeps pace with inserting: pure arithmetic, needs nothing.

With n inserts and s samples so far, the difference n * samples_per_insert - s
is held within a window, whose middle is what it is when replay has its least
size and nothing has been sampled. Where it would leave the window below,
sampling waits; above, inserting.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Pace:
  """Samples per insert, and the window that they are held in.

  Attributes:
    samples_per_insert: samples that follow each insert of an item.
    min_size: items in replay before anything is sampled.
    middle: the difference in the window's middle, in samples.
    half_width: samples from there to either end of the window.
  """

  samples_per_insert: float
  min_size: int
  middle: float
  half_width: float

  def num_samples_due(self, num_inserts: int) -> float:
    """How many samples the inserts so far call for.

    Args:
      num_inserts: inserts of items so far.

    Returns:
      The samples; 0 below the least size.
    """
    if num_inserts < self.min_size:
      return 0.0
    # From the insert that fills replay to its least size on, one share each.
    return (num_inserts + 1) * self.samples_per_insert - self.middle


def make_pace(config: Any) -> Pace:
  """The pace that a configuration asks for, in items of replay.

  Nobody waits for ever, since the window is wide enough. Be r the samples per
  insert of an item, c the window's middle, h its half width, and B the samples
  that the learner takes at once; Reverb allows a sample while afterwards
  n * r - s >= c - h, and an insert while afterwards n * r - s <= c + h.

  In many processes, samples and inserts come one by one. Sampling waits when
  n * r - s < c - h + 1; an insert is then allowed if c - h + 1 + r <= c + h,
  that is 2 * h >= r + 1.

  In one process, learning and inserting take turns. After n inserts
  (n + 1) * r - c samples are due, and whole batches are taken while s is less,
  so that s ends below (n + 1) * r - c + B. The last of them is allowed if
  n * r - s >= c - h, for which h >= r + B suffices. Then come the inserts of
  one environment step: at most n_step transitions at the end of an episode, on
  top of those that waited for their item to be full, so that k items are no
  more transitions than k * per_item <= n_step + per_item - 1. With s at least
  what was due, the last is allowed if (n + k) * r - s <= c + h, for which
  h >= (k - 1) * r suffices, and so does h >= n_step * samples_per_insert.

  Args:
    config: the agent's configuration.

  Returns:
    The pace.
  """
  per_item = config.transitions_per_item
  samples_per_item = config.samples_per_transition * per_item
  batch = config.batch_size * config.num_sgd_steps_per_step
  min_size = math.ceil(config.min_replay_size / per_item)
  return Pace(
    samples_per_insert=samples_per_item,
    min_size=min_size,
    middle=min_size * samples_per_item,
    half_width=max(
      config.samples_per_transition
      * config.samples_per_insert_tolerance
      * config.min_replay_size,
      samples_per_item + config.n_step * config.samples_per_transition,
      # Not one batch but four: what is on its way to the learner counts too,
      # and it need not wait for the next batch then.
      samples_per_item + 4 * batch,
    ),
  )
