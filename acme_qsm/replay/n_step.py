"""Makes one transition of several steps. Pure arithmetic, needs nothing."""

from collections.abc import Sequence

from acme_qsm.types import Transition


def join_steps(steps: Sequence[Transition], discount: float) -> Transition:
  """Makes the n-step transition of n consecutive steps of an episode.

  With the environment's rewards r and discounts d of the steps 1, ..., n and
  the agent's discount g, its reward is sum_k r_k prod_{i<k} (d_i g), and its
  discount is prod_k d_k times g^(n - 1): what the learner's bootstrap term is
  multiplied by, beside its own discount.

  Args:
    steps: n transitions of one step each, without a batch axis, the first
      first; at least one.
    discount: the agent's discount g per environment step.

  Returns:
    The transition from the first step's observation to the last one's next
    observation, with the action and the extras of the first.
  """
  reward, total_discount = steps[0].reward, steps[0].discount
  for step in steps[1:]:
    total_discount *= discount
    reward += total_discount * step.reward
    total_discount *= step.discount
  return steps[0]._replace(
    reward=reward,
    discount=total_discount,
    next_observation=steps[-1].next_observation,
  )
