"""The learner: training on what replay gives, for one seed or for several."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types
from acme_qsm.agents.seed_axis import SeedAxis
from acme_qsm.agents.training import Training
from acme_qsm.core import LearnerCore
from acme_qsm.replay.codec import TransitionCodec


@dataclasses.dataclass(frozen=True)
class LearnerSeed:
  """What is one seed's own: its key, its batches, and where its records go.

  Attributes:
    random_key: PRNG key of the parameters and of all that follows.
    dataset: an iterator over samples, such as `reverb.ReplaySample`, whose
      `data` are num_sgd_steps_per_step batches of packed transitions.
    counter: counts `steps` and `walltime`, as Acme's counters do; None to count
      them here.
    logger: gets each step's metrics and counts, as Acme's loggers do; None to
      log nothing. Of several seeds, metrics are fetched when they are read.
    replay: where the core has `update_extras`, the `EmbeddedReplay` that holds
      the transitions; not used otherwise.
    name: what the seed is called in errors; "" for the only one.
  """

  random_key: jax.Array
  dataset: Iterator[Any]
  counter: Any = None
  logger: Any = None
  replay: Any = None
  name: str = ""


class DiffusionLearner:
  """Runs the training steps of S seeds, all in one call, on what replay gives.

  With one seed it has the methods of Acme's learners. A seed of several makes
  the steps that it makes alone with its key and its batches, but for rounding:
  products of stacked matrices are summed in another order.

  Attributes:
    seeds: for each seed, what saves and restores its whole state, as numpy
      arrays: the same, however many seeds there are.
    metrics: of the last step by name, [S] each, NaN for seeds that took no
      part; of one seed []. Empty before the first.
  """

  def __init__(
    self,
    learner_core: LearnerCore,
    seeds: Sequence[LearnerSeed],
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
    if by_turns is None:
      by_turns = jax.default_backend() == "cpu"
    self._core = learner_core
    self._seeds = seeds
    self._counters = [seed.counter or _Counter() for seed in seeds]
    self._axis = axis = SeedAxis(len(seeds))
    self._num_sgd_steps = num_sgd_steps_per_step
    self._writes_extras = (
      learner_core.update_extras is not None
      and bool(codec.extras_spec)
      and all(seed.replay is not None for seed in seeds)
    )
    # One after another: compiled already if a seed was ever trained alone.
    init = jax.jit(learner_core.init)
    self._state = axis.stack([init(seed.random_key) for seed in seeds])
    training = Training(learner_core, codec, num_sgd_steps_per_step)
    # Nothing is donated: on a CPU, a call that donates returns only when it is
    # done, and nobody could act or fetch the next batch beside it.
    self._step_together = jax.jit(
      functools.partial(training.step_together, axis)
    )
    self._step_some = jax.jit(
      functools.partial(training.step_some, axis, by_turns)
    )
    self._diagnose = jax.jit(axis.map(training.diagnostics))
    self._variables = learner_core.variables
    if axis.size > 1:
      self._variables = {
        name: jax.jit(axis.map(variable))
        for name, variable in learner_core.variables.items()
      }
    self._diagnostics_period = diagnostics_period
    # By seed: gradient steps in all, and calls since the last diagnostics.
    self._num_steps = [0] * axis.size
    self._num_calls = [0] * axis.size
    self._diagnostics: list[Mapping[str, Any]] = [{}] * axis.size
    self._last_time: float | None = None
    self._finite: jax.Array | bool = True
    self._took_part: Sequence[bool] = ()
    self._unwritten: tuple[Sequence[Any], jax.Array] | None = None
    self.metrics: types.Metrics = {}
    self.seeds = [SeedOfLearner(self, index) for index in range(axis.size)]

  def run(self, num_steps: int | None = None) -> None:
    """Calls `step` that often; None to go on until it raises."""
    calls = itertools.count() if num_steps is None else range(num_steps)
    for _ in calls:
      self.step()

  def step(self, takes_part: Sequence[bool] | None = None) -> None:
    """Makes num_sgd_steps_per_step gradient steps of each seed that takes part.

    Args:
      takes_part: [S] whether a seed does, at least one of them; None for all.

    Raises:
      NonFiniteError: if a metric of the step before is not finite; names the
        seeds. Looking one step back lets the device work while the next batch
        is fetched.
    """
    takes_part = takes_part or [True] * len(self._seeds)
    samples: list[Any] = [
      next(seed.dataset) if takes else None
      for seed, takes in zip(self._seeds, takes_part, strict=True)
    ]
    self.finish_step()
    if self._writes_extras:
      # They may have been drawn before the last step's extras were written.
      samples = [
        sample and seed.replay.refresh(sample)
        for seed, sample in zip(self._seeds, samples, strict=True)
      ]
    some = next(each.data for each in samples if each is not None)
    data = self._axis.stack(
      [np.zeros_like(some) if x is None else x.data for x in samples]
    )
    self._diagnose_if_due(takes_part, data)
    if all(takes_part) and len(set(self._num_steps)) == 1:
      step = self._step_together(self._state, data)
    else:
      step = self._step_some(self._state, data, np.array(takes_part))
    # Which the device may not have done yet.
    self._state, self.metrics, self._finite, extras = step
    if self._writes_extras:
      self._unwritten = (samples, extras)
    self._took_part = takes_part
    self._log(takes_part)

  def _diagnose_if_due(
    self, takes_part: Sequence[bool], data: np.ndarray
  ) -> None:
    due = [
      index
      for index, takes in enumerate(takes_part)
      if takes and self._num_calls[index] % self._diagnostics_period == 0
    ]
    if due:
      # Not waited for either.
      diagnostics = self._diagnose(self._state, data)
      for index in due:
        self._diagnostics[index] = self._axis.pick(diagnostics, index)

  def _log(self, takes_part: Sequence[bool]) -> None:
    """Counts the steps, and writes a row of each seed's that made any."""
    now = time.monotonic()
    elapsed = 0.0 if self._last_time is None else now - self._last_time
    self._last_time = now
    for index, seed in enumerate(self._seeds):
      if not takes_part[index]:
        continue
      self._num_calls[index] += 1
      self._num_steps[index] += self._num_sgd_steps
      counts = self._counters[index].increment(
        steps=self._num_sgd_steps, walltime=elapsed
      )
      if seed.logger is None:
        continue
      metrics = self._axis.pick(self.metrics, index)
      diagnostics = self._diagnostics[index]
      # Of several seeds, nothing is fetched before it is read.
      seed.logger.write(
        {**metrics, **diagnostics, **counts}
        if self._axis.size == 1
        else collections.ChainMap(dict(counts), diagnostics, metrics)  # pyright: ignore[reportArgumentType]
      )

  def finish_step(self) -> None:
    """Waits for the last step, and has replay take what it says.

    Raises:
      NonFiniteError: if a metric is not finite; nothing is written then.
    """
    # One value to fetch, where all of them would take a fifth of a millisecond.
    if not self._finite:
      raise types.NonFiniteError(self._describe_non_finite())
    if self._unwritten is None:
      return
    samples, extras = self._unwritten
    for seed, sample, each in zip(
      self._seeds, samples, self._axis.rows(extras), strict=True
    ):
      if sample is None:
        continue
      try:
        seed.replay.write_extras(sample.indices, each)
      except types.NonFiniteError as error:
        raise types.NonFiniteError(_say_of(seed, str(error))) from error
    self._unwritten = None

  def _describe_non_finite(self) -> str:
    """Says which metrics of which seeds are not finite, after which step."""
    all_steps = self._axis.rows(self._state.steps)
    found = []
    for index, seed in enumerate(self._seeds):
      # All of them: what went wrong first is not the first by name.
      values = ", ".join(
        f"{name} is {value}"
        for name, value in self._axis.pick(self.metrics, index).items()
        if self._took_part[index] and not np.isfinite(value)
      )
      if values:
        found.append(
          _say_of(seed, f"{values} after learner step {all_steps[index]}")
        )
    return "; ".join(found) + "."

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns parameters by name.

    Args:
      names: of those in `LearnerCore.variables`.

    Returns:
      The parameters, a list as long as names; of several seeds, each array
      [S, ...].

    Raises:
      ValueError: if a name is unknown.
    """
    unknown = set(names) - set(self._variables)
    if unknown:
      raise ValueError(
        f"Unknown variables {sorted(unknown)}; there are "
        f"{sorted(self._variables)}."
      )
    state = self._state
    return [self._variables[name](state) for name in names]

  def save(self, index: int = 0) -> Any:
    """Returns a seed's whole training state, as numpy arrays.

    Raises:
      NonFiniteError: if the last step's metrics are not finite.
    """
    self.finish_step()
    return to_numpy(self._axis.take(self._state, index))

  def restore(self, state: Any, index: int = 0) -> None:
    """Has a seed go on from a state that `save` returned."""
    one = from_numpy(state, self._state)
    self._state = self._axis.put(self._state, index, one)
    self._num_steps[index] = int(state.steps)
    self._num_calls[index] = 0  # The last diagnostics are of another state.
    self._finite = True
    self._unwritten = None


def _say_of(seed: LearnerSeed, message: str) -> str:
  """A message that names its seed, where that has a name."""
  return f"{seed.name}: {message}" if seed.name else message


@dataclasses.dataclass(frozen=True)
class SeedOfLearner:
  """One seed of a learner, with what Acme's learners save and restore by.

  Attributes:
    learner: all seeds.
    index: which one it is.
  """

  learner: DiffusionLearner
  index: int

  def save(self) -> Any:
    """Returns its training state: see `DiffusionLearner.save`."""
    return self.learner.save(self.index)

  def restore(self, state: Any) -> None:
    """Goes on from a state that `save` returned."""
    self.learner.restore(state, self.index)


def to_numpy(state: Any) -> Any:
  """Fetches a state as numpy arrays; of a typed key, its data."""
  return jax.device_get(
    jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)
  )


def from_numpy(arrays: Any, like: Any) -> Any:
  """Turns what `to_numpy` returned into a state with keys like another's."""

  def convert(array: np.ndarray, like: jax.Array) -> jax.Array:
    if not _is_key(like):
      return jnp.array(array)
    impl = jax.random.key_impl(like)
    return jax.random.wrap_key_data(jnp.array(array), impl=impl)

  return jax.tree.map(convert, arrays, like)


def _is_key(array: jax.Array) -> bool:
  return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


class _Counter:
  """Counts a learner's steps and seconds."""

  def __init__(self):
    self._counts = collections.Counter()

  def increment(self, **counts: float) -> dict[str, Any]:
    self._counts.update(
      {f"learner_{name}": count for name, count in counts.items()}
    )
    return dict(self._counts)
