"""How fast transitions go into replay and batches come out of it."""

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import numpy as np

from acme_qsm import QSMBuilder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import Sample
from launchers.benchmarks import learner as learner_benchmark
from launchers.benchmarks import machine

_EPISODE_LENGTH = 1_000
_NUM_NEW = 10_000
"""Transitions between two checkpoints."""


class Waiting:
  """A learner whose waiting for batches is measured.

  A batch is waited for if no update is running any more when it comes: then all
  of the time that it took counts, although an update may have covered a part.
  """

  def __init__(self, builder: QSMBuilder):
    """Makes the learner, and compiles its step."""
    config = builder.config
    spec = learner_benchmark.make_spec()
    size = config.transitions_per_item * TransitionCodec(spec).size
    zeros = np.zeros((config.batch_size, size), np.float32)
    self._batches: Iterator[Any] = itertools.repeat(
      Sample(zeros, np.zeros(config.batch_size, np.int64))
    )
    self._waited = 0.0
    self._learner = builder.make_learner(
      jax.random.key(0),
      learner_benchmark.make_networks(builder.config),
      self._timed_batches(),
      environment_spec=spec,
    )
    self._learner.step()

  def _timed_batches(self) -> Iterator[Any]:
    while True:
      start = time.perf_counter()
      batch = next(self._batches)
      if jax.tree.leaves(self._learner.get_variables(["critic"]))[0].is_ready():
        self._waited += time.perf_counter() - start
      yield batch

  def measure(self, batches: Iterator[Any], seconds: float) -> float:
    """The share of its time that the learner waits for these batches."""
    self._batches = batches
    for _ in range(20):
      self._learner.step()
    self._waited = 0.0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
      self._learner.step()
    return self._waited / (time.perf_counter() - start)


def measure_embedded(
  num_transitions: int, seconds: float, folder: pathlib.Path
) -> dict[str, float]:
  """Measures replay in the memory of this process.

  Args:
    num_transitions: how many are inserted.
    seconds: how long sampling is measured.
    folder: on the disk that it is saved to.

  Returns:
    What there is to say of it.
  """
  builder = QSMBuilder(learner_benchmark.make_config())
  waiting = Waiting(builder)
  replay = builder.make_embedded_replay(learner_benchmark.make_spec(), seed=0)
  return measure(
    builder, waiting, replay, replay.save, num_transitions, seconds, folder
  )


def measure(
  builder: QSMBuilder,
  waiting: Waiting,
  client: Any,
  save: Callable[[pathlib.Path, pathlib.Path | None], None],
  num_transitions: int,
  seconds: float,
  folder: pathlib.Path,
  pid: int | None = None,
) -> dict[str, float]:
  """Fills replay, samples from it and saves it, with a run's own parts.

  Args:
    builder: makes the parts.
    waiting: a learner of that builder's.
    client: what they reach the replay by, which is empty.
    save: (a new folder, that of the save before or None) -> None; saves it.
    num_transitions: how many are inserted before it is sampled.
    seconds: how long sampling is measured.
    folder: on the disk that it is saved to.
    pid: the process that has the replay; None for this one.

  Returns:
    What there is to say of it.
  """
  spec = learner_benchmark.make_spec()
  adder = builder.make_adder(client, spec)
  empty = machine.memory(pid).now
  start = time.perf_counter()
  _insert(adder, num_transitions)
  inserts = num_transitions / (time.perf_counter() - start)
  full = machine.memory(pid).now

  batches = builder.make_dataset_iterator(client)
  batch_size = builder.config.batch_size
  for _ in range(20):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    next(batches)
    count += batch_size
  samples = count / (time.perf_counter() - start)
  wait_share = waiting.measure(batches, seconds)

  with tempfile.TemporaryDirectory(dir=folder) as saves:
    first, second = pathlib.Path(saves, "1"), pathlib.Path(saves, "2")
    first_save = _time(lambda: save(first, None))
    _insert(adder, _NUM_NEW)
    next_save = _time(lambda: save(second, first))
  return {
    "inserts_per_second": inserts,
    "samples_per_second": samples,
    "transitions": num_transitions,
    "bytes_per_transition": (full - empty) / num_transitions,
    # A save included; with few transitions, what was compiled before is more.
    "peak_bytes_per_transition": (machine.memory(pid).peak - empty)
    / num_transitions,
    "raw_bytes_per_transition": TransitionCodec(spec).size * 4,
    "learner_wait_share": wait_share,
    "first_save_seconds": first_save,
    f"save_seconds_{_NUM_NEW}_later": next_save,
  }


def _time(function: Callable[[], None]) -> float:
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def _insert(adder: Any, num_transitions: int) -> None:
  """Inserts episodes of random numbers, and waits until all are there."""
  random = np.random.default_rng(0)
  # Reverb compresses what repeats itself within an item.
  observations = random.normal(
    size=(_EPISODE_LENGTH, learner_benchmark.OBSERVATION_SIZE)
  ).astype(np.float32)
  actions = random.uniform(
    -1.0, 1.0, size=(_EPISODE_LENGTH, learner_benchmark.ACTION_SIZE)
  ).astype(np.float32)
  for i in range(num_transitions):
    step = i % _EPISODE_LENGTH
    if step == 0:
      adder.add_first(dm_env.restart(observations[0]))
    last = step == _EPISODE_LENGTH - 1
    make_timestep = dm_env.truncation if last else dm_env.transition
    adder.add(actions[step], make_timestep(0.0, observations[step]))
  adder.flush()
  adder.reset()
