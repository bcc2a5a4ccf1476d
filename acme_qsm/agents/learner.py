"""The Acme learner: a thin shell around the pure training step."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types
from acme_qsm.core import LearnerCore
from acme_qsm.core import TrainingState
from acme_qsm.replay.codec import TransitionCodec


class Sample(Protocol):
  """What replay gives for a learner step, such as `reverb.ReplaySample`.

  Attributes:
    data: packed transitions.
  """

  @property
  def data(self) -> Any: ...  # noqa: D102


class ExtrasReplay(Protocol):
  """Replay whose transitions' extras change: see `EmbeddedReplay`."""

  def refresh(self, sample: Any) -> Any:
    """The same transitions as they are by now."""
    ...

  def write_extras(self, indices: np.ndarray, extras: np.ndarray) -> None:
    """Changes the packed extras [B, E] of transitions that were drawn."""
    ...


class Counter(Protocol):
  """Who counts, such as Acme's counter."""

  def increment(self, **counts: float) -> Mapping[str, float]:
    """Adds to the counts; returns all of them."""
    ...


class Logger(Protocol):
  """Who keeps rows of values, such as Acme's loggers."""

  def write(self, data: Mapping[str, Any], /) -> None:
    """Keeps a row."""
    ...


class Step(NamedTuple):
  """What comes of a call of `Training.step`.

  Attributes:
    state: the next state.
    metrics: means over the gradient steps.
    finite: [] whether all of them are.
    extras: [num_sgd_steps * batch_size, E] packed extras that replay is to hold
      of the transitions from now on; () where they stay as they are.
  """

  state: TrainingState
  metrics: types.Metrics
  finite: jax.Array
  extras: Any


@dataclasses.dataclass(frozen=True)
class Training:
  """The pure functions of a learner whose batches are packed.

  Attributes:
    core: the learner's functions.
    codec: unpacks them, on the device.
    num_sgd_steps: gradient steps per call of `step`.
  """

  core: LearnerCore
  codec: TransitionCodec
  num_sgd_steps: int

  def step(self, state: TrainingState, data: jax.Array) -> Step:
    """Makes num_sgd_steps gradient steps.

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

  def diagnostics(self, state: TrainingState, data: jax.Array) -> types.Metrics:
    """The core's diagnostics of the first batch."""
    first = data[: data.shape[0] // self.num_sgd_steps]
    return self.core.diagnostics(state, self.codec.unpack(first))


def to_numpy(state: TrainingState) -> TrainingState:
  """Fetches a state, or several stacked ones, as numpy arrays."""
  # Typed keys are no numbers.
  state = state._replace(key=jax.random.key_data(state.key))
  return jax.device_get(state)


def from_numpy(arrays: TrainingState, like: TrainingState) -> TrainingState:
  """Turns what `to_numpy` returned into a state with keys like another's."""
  state = jax.tree.map(jnp.array, arrays)
  if jnp.issubdtype(like.key.dtype, jax.dtypes.prng_key):
    impl = jax.random.key_impl(like.key)
    state = state._replace(key=jax.random.wrap_key_data(state.key, impl=impl))
  return state


def describe_non_finite(metrics: Mapping[str, Any], steps: int) -> str:
  """Says which metrics are not finite after how many learner steps."""
  # All of them: what went wrong first is not the first by name.
  found = ", ".join(
    f"{name} is {value}"
    for name, value in metrics.items()
    if not np.isfinite(value)
  )
  return f"{found} after learner step {steps}"


def require_variables(core: LearnerCore, names: Sequence[str]) -> None:
  """Raises ValueError if the core has no variables of a name."""
  unknown = set(names) - set(core.variables)
  if unknown:
    raise ValueError(
      f"Unknown variables {sorted(unknown)}; there are "
      f"{sorted(core.variables)}."
    )


class DiffusionLearner:
  """Runs the training step on batches from replay.

  Has the methods of Acme's learners.
  `save` and `restore` exchange the whole `TrainingState`, as numpy arrays.
  """

  def __init__(
    self,
    learner_core: LearnerCore,
    random_key: jax.Array,
    dataset: Iterator[Sample],
    codec: TransitionCodec,
    *,
    num_sgd_steps_per_step: int = 1,
    diagnostics_period: int = 100,
    counter: Counter | None = None,
    logger: Logger | None = None,
    replay: ExtrasReplay | None = None,
  ):
    """Initialises the learner.

    Args:
      learner_core: the pure functions.
      random_key: PRNG key of the parameters and of all that follows.
      dataset: an iterator over samples, num_sgd_steps_per_step batches at
        once.
      codec: unpacks a sample's `data`, on the device.
      num_sgd_steps_per_step: gradient steps per call of `step`.
      diagnostics_period: calls of `step` per call of the core's `diagnostics`,
        the first included; what it says is logged until it says more.
      counter: counts `steps` and `walltime`; None to count them here.
      logger: gets each step's metrics and counts.
      replay: has the transitions, whose extras it takes where the core has
        `update_extras`; not used otherwise.
    """
    self._replay = None if learner_core.update_extras is None else replay
    self._core = learner_core
    self._dataset = dataset
    self._num_sgd_steps = num_sgd_steps_per_step
    self._counter = counter or _Counter()
    self._logger = logger
    self._state = jax.jit(learner_core.init)(random_key)
    training = Training(learner_core, codec, num_sgd_steps_per_step)
    # Nothing is donated: on a CPU, a call that donates returns only when it is
    # done, and nobody could act or fetch the next batch beside it.
    self._step = jax.jit(training.step)
    self._diagnose = jax.jit(training.diagnostics)
    self._diagnostics_period = diagnostics_period
    self._unwritten: tuple[np.ndarray, jax.Array] | None = None
    self._num_calls = 0
    self._diagnostics: types.Metrics = {}
    self._metrics: types.Metrics = {}
    self._metrics_are_finite: jax.Array | bool = True
    self._last_time: float | None = None

  def run(self, num_steps: int | None = None) -> None:
    """Calls `step` that often; None to go on until it raises."""
    calls = itertools.count() if num_steps is None else range(num_steps)
    for _ in calls:
      self.step()

  def step(self) -> None:
    """Makes num_sgd_steps_per_step gradient steps.

    Raises:
      NonFiniteError: if a metric of the step before is not finite: looking one
        step back lets the device work while the next batch is fetched.
    """
    sample: Any = next(self._dataset)
    self._finish_step()
    if self._replay is not None:
      # It may have been drawn before the last step's extras were written.
      sample = self._replay.refresh(sample)
    data = sample.data
    if self._num_calls % self._diagnostics_period == 0:
      # Not waited for either.
      self._diagnostics = self._diagnose(self._state, data)
    self._num_calls += 1
    self._state, self._metrics, self._metrics_are_finite, extras = self._step(
      self._state, data
    )
    if self._replay is not None:
      self._unwritten = (sample.indices, extras)

    now = time.monotonic()
    elapsed = 0.0 if self._last_time is None else now - self._last_time
    self._last_time = now
    counts = self._counter.increment(
      steps=self._num_sgd_steps, walltime=elapsed
    )
    if self._logger is not None:
      self._logger.write({**self._metrics, **self._diagnostics, **counts})

  def _finish_step(self) -> None:
    """Waits for the last step, and has replay take what it says.

    Raises:
      NonFiniteError: if a metric is not finite; nothing is written then.
    """
    # One value to fetch, where all of them would take a fifth of a millisecond.
    if not self._metrics_are_finite:
      raise types.NonFiniteError(
        f"{describe_non_finite(self._metrics, int(self._state.steps))}."
      )
    if self._replay is not None and self._unwritten is not None:
      indices, extras = self._unwritten
      self._replay.write_extras(indices, np.asarray(extras))
      self._unwritten = None

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns parameters by name.

    Args:
      names: of those in `LearnerCore.variables`.

    Returns:
      The parameters, a list as long as names.

    Raises:
      ValueError: if a name is unknown.
    """
    require_variables(self._core, names)
    state = self._state
    return [self._core.variables[name](state) for name in names]

  def save(self) -> TrainingState:
    """Returns the whole training state, as numpy arrays.

    Raises:
      NonFiniteError: if the last step's metrics are not finite.
    """
    self._finish_step()
    return to_numpy(self._state)

  def restore(self, state: TrainingState) -> None:
    """Goes on from a state that `save` returned."""
    self._state = from_numpy(state, self._state)
    self._num_calls = 0  # The last diagnostics are of another state.
    self._metrics_are_finite = True
    self._unwritten = None


class _Counter:
  """Counts a learner's steps and seconds."""

  def __init__(self):
    self._counts = collections.Counter()

  def increment(self, **counts: float) -> dict[str, Any]:
    self._counts.update(
      {f"learner_{name}": count for name, count in counts.items()}
    )
    return dict(self._counts)
