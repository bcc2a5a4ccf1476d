"""What a learner is: the pure functions that every method makes of networks."""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax

from acme_qsm import types


@dataclasses.dataclass(frozen=True)
class LearnerCore:
  """The pure functions of a learner.

  A state is a NamedTuple of the method's own, all that training needs to go on;
  its field `steps` counts the learner steps made, [] int32.

  Attributes:
    init: key -> state.
    step: (state, transitions) -> (state, metrics): one learner step on one
      batch. Jit it, scan it over batches or vmap it over states. The state may
      be donated; on a CPU, such a call returns when it is done.
    policy_params: state -> the parameters that the method's policy takes.
    variables: by name, what a learner answers to who asks, from its state:
      "policy" (as policy_params), "acting_policy" and "evaluation_policy" (the
      same without what that policy does not read), and where there are critics
      "critic" (the online critics' parameters).
    diagnostics: (state, transitions) -> metrics that cost more than a step
      should. The state stays as it is. Call it now and then.
    update_extras: (state, transitions) -> the same transitions, whose extras
      are what replay is to hold from then on; call it before `step`, for
      transitions that have extras. None where they stay as they are.
  """

  init: Callable[[jax.Array], Any]
  step: Callable[[Any, types.Transition], tuple[Any, types.Metrics]]
  policy_params: Callable[[Any], Any]
  variables: Mapping[str, Callable[[Any], Any]]
  diagnostics: Callable[[Any, types.Transition], types.Metrics] = (
    lambda state, transitions: {}
  )
  update_extras: Callable[[Any, types.Transition], types.Transition] | None = (
    None
  )

  def step_with_extras(
    self, state: Any, transitions: types.Transition
  ) -> tuple[Any, tuple[types.Metrics, Any]]:
    """`step`, after `update_extras` where transitions have extras.

    Args:
      state: the state before.
      transitions: the batch.

    Returns:
      The next state; the metrics, and the extras by name [B, ...] that replay
      is to hold from now on, () if they stay as they are.
    """
    extras = ()
    if self.update_extras is not None and types.are_given(transitions.extras):
      transitions = self.update_extras(state, transitions)
      extras = transitions.extras
    state, metrics = self.step(state, transitions)
    return state, (metrics, extras)
