"""The pure functions of a learner, for one seed and for several."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import types
from acme_qsm.agents.seed_axis import SeedAxis
from acme_qsm.core import LearnerCore
from acme_qsm.replay.codec import TransitionCodec


class Step(NamedTuple):
  """What comes of a call of `Training.step`.

  Attributes:
    state: the next state.
    metrics: means over the gradient steps.
    finite: [] whether all of them are.
    extras: [num_sgd_steps * batch_size, E] packed extras that replay is to hold
      of the transitions from now on; () where they stay as they are.
  """

  state: Any
  metrics: types.Metrics
  finite: jax.Array
  extras: Any


@dataclasses.dataclass(frozen=True)
class Training:
  """Training on packed batches.

  Attributes:
    core: the learner's functions.
    codec: unpacks them, on the device.
    num_sgd_steps: gradient steps per call of `step`.
  """

  core: LearnerCore
  codec: TransitionCodec
  num_sgd_steps: int

  def step(self, state: Any, data: jax.Array) -> Step:
    """Makes num_sgd_steps gradient steps of one seed.

    Args:
      state: the state before.
      data: [num_sgd_steps * batch_size, D] packed transitions.

    Returns:
      What comes of them.
    """
    transitions = self.codec.unpack(data)
    if self.num_sgd_steps == 1:
      state, (metrics, extras) = self.core.step_with_extras(state, transitions)
    else:
      batches = jax.tree.map(
        lambda x: x.reshape(self.num_sgd_steps, -1, *x.shape[1:]), transitions
      )
      state, (metrics, extras) = jax.lax.scan(
        self.core.step_with_extras, state, batches
      )
      # A mean keeps a NaN of any of the steps.
      metrics = jax.tree.map(jnp.mean, metrics)
      extras = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), extras)
    if extras:
      extras = self.codec.pack_extras(extras)
    finite = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics)))
    return Step(state, metrics, jnp.all(finite), extras)

  def diagnostics(self, state: Any, data: jax.Array) -> types.Metrics:
    """The core's diagnostics of one seed's first batch."""
    first = data[: data.shape[0] // self.num_sgd_steps]
    return self.core.diagnostics(state, self.codec.unpack(first))

  def step_together(self, axis: SeedAxis, state: Any, data: jax.Array) -> Step:
    """Makes steps of all seeds, which have made as many so far.

    Args:
      axis: the seeds.
      state: the states before, of all seeds.
      data: their packed transitions.

    Returns:
      `step`'s, of all seeds; `finite` is one for all.
    """
    if axis.size == 1:
      return self.step(state, data)
    # One number for all: of what depends on it alone, such as whether the
    # policy's update is due, only the branch that is taken is computed then.
    axes = type(state)(*(0 for _ in state))._replace(steps=None)
    out_axes: Any = (axes, 0, 0, 0)
    step = axis.map(self.step, in_axes=(axes, 0), out_axes=Step(*out_axes))(
      state._replace(steps=state.steps[0]), data
    )
    steps = jnp.broadcast_to(step.state.steps, (axis.size,))
    return step._replace(
      state=step.state._replace(steps=steps), finite=jnp.all(step.finite)
    )

  def step_some(
    self,
    axis: SeedAxis,
    by_turns: bool,
    state: Any,
    data: jax.Array,
    takes_part: jax.Array,
  ) -> Step:
    """Makes steps of some of several seeds, however many each has made.

    Args:
      axis: the seeds, at least two.
      by_turns: whether the seeds make their steps one after another. Then the
        steps of those that take part are all that is computed; side by side,
        all seeds' are, and what is not wanted is dropped.
      state: the states before, of all seeds.
      data: their packed transitions; anything, of seeds that take no part.
      takes_part: [S] whether a seed makes a step.

    Returns:
      `step`'s, of all seeds, with NaNs for those that took no part; `finite` is
      one for all that did.
    """
    shapes = jax.eval_shape(axis.map(self.step), state, data)

    def stay(state: Any, data: jax.Array) -> Step:
      del data
      metrics, extras = jax.tree.map(
        lambda x: jnp.full(x.shape[1:], jnp.nan, x.dtype),
        (shapes.metrics, shapes.extras),
      )
      return Step(state, metrics, jnp.array(True), extras)

    def one(arguments: Any) -> Any:
      state, data, takes_part = arguments
      return jax.lax.cond(takes_part, self.step, stay, state, data)

    arguments = (state, data, takes_part)
    step = jax.lax.map(one, arguments) if by_turns else axis.map(one)(arguments)
    return step._replace(finite=jnp.all(step.finite))
