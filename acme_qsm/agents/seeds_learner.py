"""One learner for several seeds of an agent, whose steps are one program."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types
from acme_qsm.agents import learner
from acme_qsm.core import LearnerCore
from acme_qsm.core import TrainingState
from acme_qsm.replay.codec import TransitionCodec


@dataclasses.dataclass(frozen=True)
class SeedRecords:
  """Where one seed's batches come from, and its records go.

  Attributes:
    random_key: PRNG key of the parameters and of all that follows.
    dataset: an iterator over samples, num_sgd_steps_per_step batches at once.
    counter: counts `steps` and `walltime`.
    logger: gets each step's metrics and counts, which are fetched from the
      device when they are read.
    name: what the seed is called.
    replay: as a `DiffusionLearner`'s.
  """

  random_key: jax.Array
  dataset: Iterator[learner.Sample]
  counter: learner.Counter
  logger: learner.Logger
  name: str
  replay: learner.ExtrasReplay | None = None


class SeedsLearner:
  """Runs the training steps of S seeds at once, their states stacked.

  A seed makes the steps that a `DiffusionLearner` with its key and its batches
  makes, but for rounding: products of stacked matrices are summed in another
  order.

  Attributes:
    metrics: of the last step by name, [S] each, NaN for seeds that took no
      part; empty before the first.
    seeds: for each seed, what saves and restores its state: as a
      `DiffusionLearner` does, to the same content.
  """

  def __init__(
    self,
    learner_core: LearnerCore,
    seeds: Sequence[SeedRecords],
    codec: TransitionCodec,
    *,
    num_sgd_steps_per_step: int = 1,
    diagnostics_period: int = 100,
    by_turns: bool | None = None,
  ):
    """Initialises the learner.

    Args:
      learner_core: the pure functions.
      seeds: S seeds, at least one.
      codec: unpacks a sample's `data`, on the device.
      num_sgd_steps_per_step: gradient steps per call of `step`.
      diagnostics_period: steps of a seed per call of the core's `diagnostics`,
        the first included; what it says is logged until it says more.
      by_turns: whether seeds make their steps one after another, within one
        call, where not all take part or some have made more than others; None
        for yes on a CPU, where side by side gains nothing.
    """
    self._by_turns = jax.default_backend() == "cpu"
    if by_turns is not None:
      self._by_turns = by_turns
    self._core = learner_core
    self._seeds = seeds
    self._replays = [
      None if learner_core.update_extras is None else seed.replay
      for seed in seeds
    ]
    self._num_sgd_steps = num_sgd_steps_per_step
    self._training = learner.Training(
      learner_core, codec, num_sgd_steps_per_step
    )
    # One after another: as with one seed to the last bit, and compiled already
    # if one was ever trained alone.
    init = jax.jit(learner_core.init)
    states = [init(seed.random_key) for seed in seeds]
    self._state: TrainingState = learner.from_numpy(
      jax.tree.map(
        lambda *leaves: np.stack(leaves), *map(learner.to_numpy, states)
      ),
      states[0],
    )
    # Nothing is donated: see `DiffusionLearner`.
    self._step_together = jax.jit(self._together)
    self._step_some = jax.jit(self._some)
    self._diagnose = jax.jit(jax.vmap(self._training.diagnostics))
    self._variables = {
      name: jax.jit(jax.vmap(variable))
      for name, variable in learner_core.variables.items()
    }
    # Of whichever seed, the same programs: on the device, since fetching all
    # seeds' states takes as many times as long as fetching one's.
    self._take = jax.jit(_take)
    self._put = jax.jit(_put)
    self._diagnostics_period = diagnostics_period
    self._num_steps = [0] * len(seeds)
    self._num_calls = [0] * len(seeds)
    self._diagnostics: list[Mapping[str, Any]] = [{} for _ in seeds]
    self._last_time: float | None = None
    self.metrics: types.Metrics = {}
    self._finite: jax.Array | bool = True
    self._took_part: Sequence[bool] = ()
    self._unwritten: tuple[Sequence[Any], jax.Array] | None = None
    self.seeds = [SeedLearner(self, index) for index in range(len(seeds))]

  def _together(self, state: TrainingState, data: jax.Array) -> learner.Step:
    """Steps of all seeds [S], which have made as many so far."""
    # One number for all: of what depends on it alone, such as whether the
    # policy's update is due, only the branch that is taken is computed then.
    num_seeds = len(self._seeds)
    ones: Any = (0, 0, 0)
    axes: Any = dict.fromkeys(TrainingState._fields, 0) | {"steps": None}
    axes = TrainingState(**axes)
    step = jax.vmap(
      self._training.step, in_axes=(axes, 0), out_axes=learner.Step(axes, *ones)
    )(state._replace(steps=state.steps[0]), data)
    steps = jnp.broadcast_to(step.state.steps, (num_seeds,))
    return step._replace(
      state=step.state._replace(steps=steps), finite=jnp.all(step.finite)
    )

  def _some(
    self, state: TrainingState, data: jax.Array, takes_part: jax.Array
  ) -> learner.Step:
    """Steps of those seeds that take part [S], however many each has made."""
    shapes = jax.eval_shape(jax.vmap(self._training.step), state, data)

    def stay(state: TrainingState, data: jax.Array) -> learner.Step:
      del data
      metrics, extras = jax.tree.map(
        lambda x: jnp.full(x.shape[1:], jnp.nan, x.dtype),
        (shapes.metrics, shapes.extras),
      )
      return learner.Step(state, metrics, jnp.array(True), extras)

    def one(arguments: Any) -> Any:
      state, data, takes_part = arguments
      return jax.lax.cond(takes_part, self._training.step, stay, state, data)

    # By turns, only what takes part costs anything; side by side, all does.
    arguments = (state, data, takes_part)
    step = (
      jax.lax.map(one, arguments)
      if self._by_turns
      else jax.vmap(one)(arguments)
    )
    return step._replace(finite=jnp.all(step.finite))

  def step(self, takes_part: Sequence[bool]) -> None:
    """Makes num_sgd_steps_per_step gradient steps of each seed that takes part.

    Args:
      takes_part: [S] whether a seed does, at least one of them.

    Raises:
      NonFiniteError: if a metric of the step before is not finite; names the
        seeds.
    """
    samples: list[Any] = [
      next(seed.dataset) if takes else None
      for seed, takes in zip(self._seeds, takes_part, strict=True)
    ]
    self.finish_step()
    # As in `DiffusionLearner`.
    samples = [
      sample if replay is None or sample is None else replay.refresh(sample)
      for sample, replay in zip(samples, self._replays, strict=True)
    ]
    nothing = np.zeros_like(next(x.data for x in samples if x is not None))
    data = np.stack([nothing if x is None else x.data for x in samples])
    self._diagnose_if_due(takes_part, data)
    self._took_part = takes_part
    if all(takes_part) and len(set(self._num_steps)) == 1:
      step = self._step_together(self._state, data)
    else:
      step = self._step_some(self._state, data, np.array(takes_part))
    self._state, self.metrics, self._finite, extras = step
    if self._core.update_extras is not None:
      self._unwritten = (samples, extras)
    self._log(takes_part)

  def _diagnose_if_due(
    self, takes_part: Sequence[bool], data: np.ndarray
  ) -> None:
    due = [
      index
      for index, takes in enumerate(takes_part)
      if takes and self._num_calls[index] % self._diagnostics_period == 0
    ]
    if not due:
      return
    diagnostics = self._diagnose(self._state, data)
    for index in due:
      self._diagnostics[index] = _OneSeed(diagnostics, index)

  def _log(self, takes_part: Sequence[bool]) -> None:
    now = time.monotonic()
    elapsed = 0.0 if self._last_time is None else now - self._last_time
    self._last_time = now
    for index, seed in enumerate(self._seeds):
      if not takes_part[index]:
        continue
      self._num_calls[index] += 1
      self._num_steps[index] += self._num_sgd_steps
      counts = seed.counter.increment(
        steps=self._num_sgd_steps, walltime=elapsed
      )
      # Its names in the order of a `DiffusionLearner`'s.
      row = collections.ChainMap(
        dict(counts),
        self._diagnostics[index],  # pyright: ignore[reportArgumentType]
        _OneSeed(self.metrics, index),  # pyright: ignore[reportArgumentType]
      )
      seed.logger.write(row)

  def finish_step(self) -> None:
    """Waits for the last step, and has replay take what it says.

    Raises:
      NonFiniteError: if a metric is not finite; nothing is written then.
    """
    if not self._finite:
      self._fail()
    if self._unwritten is None:
      return
    samples, extras = self._unwritten
    for replay, sample, each in zip(
      self._replays, samples, np.asarray(extras), strict=True
    ):
      if sample is not None and replay is not None:
        replay.write_extras(sample.indices, each)
    self._unwritten = None

  def _fail(self) -> None:
    """Raises NonFiniteError for what is not finite of which seeds."""
    steps = np.asarray(self._state.steps)
    found = []
    for index, seed in enumerate(self._seeds):
      row = dict(_OneSeed(self.metrics, index))
      if self._took_part[index] and not np.all(np.isfinite(list(row.values()))):
        found.append(
          f"{seed.name}: " + learner.describe_non_finite(row, steps[index])
        )
    raise types.NonFiniteError("; ".join(found) + ".")

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns all seeds' parameters by name, stacked: see `DiffusionLearner`.

    Args:
      names: of those in `LearnerCore.variables`.

    Returns:
      The parameters, each leaf [S, ...], a list as long as names.

    Raises:
      ValueError: if a name is unknown.
    """
    learner.require_variables(self._core, names)
    return [self._variables[name](self._state) for name in names]

  def save(self, index: int) -> TrainingState:
    """Returns a seed's training state: see `DiffusionLearner.save`."""
    self.finish_step()
    return learner.to_numpy(self._take(self._state, index))

  def restore(self, index: int, state: TrainingState) -> None:
    """Has a seed go on from a state that `save` returned."""
    one = learner.from_numpy(state, self._state)
    self._state = self._put(self._state, index, one)
    self._num_steps[index] = int(state.steps)
    self._num_calls[index] = 0  # The last diagnostics are of another state.
    self._finite = True
    self._unwritten = None


def _take(states: TrainingState, index: jax.Array) -> TrainingState:
  """One seed's of stacked states."""
  return jax.tree.map(lambda leaves: leaves[index], states)


def _put(
  states: TrainingState, index: jax.Array, state: TrainingState
) -> TrainingState:
  """Stacked states, of which one seed's is another."""
  return jax.tree.map(
    lambda leaves, leaf: leaves.at[index].set(leaf), states, state
  )


@dataclasses.dataclass(frozen=True)
class SeedLearner:
  """One seed of a `SeedsLearner`.

  Attributes:
    learner: all of them.
    index: which one it is.
  """

  learner: SeedsLearner
  index: int

  def save(self) -> TrainingState:
    """Returns its training state: see `DiffusionLearner.save`."""
    return self.learner.save(self.index)

  def restore(self, state: TrainingState) -> None:
    """Goes on from a state that `save` returned."""
    self.learner.restore(self.index, state)


class _OneSeed(Mapping[str, Any]):
  """One seed's values [] of stacked ones [S], fetched when they are read."""

  def __init__(self, values: Mapping[str, jax.Array], index: int):
    self._values = values
    self._index = index

  def __getitem__(self, name: str) -> Any:
    return np.asarray(self._values[name])[self._index]

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)
