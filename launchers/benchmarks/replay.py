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

import acme_qsm
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import Sample
from launchers.benchmarks import report
from launchers.benchmarks import subject
from launchers.benchmarks import timing

REPLAYS = {
  "embedded": ("embedded", 1),
  "reverb": ("reverb", 1),
  "reverb, 16 per item": ("reverb", 16),
}
"""By name, the kind of replay and the transitions that are stored together."""

_EPISODE_LENGTH = 1_000
_NUM_NEW = 10_000
"""Transitions between two checkpoints."""


def list_replays(effort: timing.Effort) -> dict[str, tuple[str, int]]:
  """Those of `REPLAYS` that are measured."""
  return {
    name: how
    for name, how in REPLAYS.items()
    if not (effort.quick and how[1] > 1)
  }


def measure(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures each replay, each in a process of its own."""
  size, seconds = (20_000, 1.0) if effort.quick else (1_000_000, 5.0)
  for name, (kind, per_item) in list_replays(effort).items():
    function = measure_embedded if kind == "embedded" else _measure_reverb
    try:
      found = timing.isolate(function, size, seconds, effort.folder, per_item)
    except ModuleNotFoundError as error:
      report.leave_out(name, error)
      continue
    for where, row in found.items():
      yield "replay", {"replay": f"{name}{where}", **row}


def measure_embedded(
  num_transitions: int,
  seconds: float,
  folder: pathlib.Path,
  transitions_per_item: int = 1,
) -> dict[str, dict[str, float]]:
  """Measures replay in the memory of this process; see `measure_client`."""
  builder = make_builder(transitions_per_item)
  waiting = Waiting(builder)
  replay = builder.make_embedded_replay(subject.SPEC, seed=0)
  row = measure_client(
    builder, waiting, replay, replay.save, num_transitions, seconds, folder
  )
  return {"": row}


def _measure_reverb(*arguments: Any) -> dict[str, dict[str, float]]:
  from launchers.benchmarks import reverb_replay

  return reverb_replay.measure(*arguments)


def make_builder(transitions_per_item: int) -> acme_qsm.QSMBuilder:
  """The builder whose replay, adder and learner are measured."""
  config = subject.make_config(transitions_per_item=transitions_per_item)
  return acme_qsm.QSMBuilder(config)


class Waiting:
  """A learner whose waiting for batches is measured.

  A batch is waited for if no update is running any more when it comes: then all
  of the time that it took counts, although an update may have covered a part.
  """

  def __init__(self, builder: acme_qsm.QSMBuilder):
    """Makes the learner, and compiles its step."""
    config = builder.config
    size = config.transitions_per_item * TransitionCodec(subject.SPEC).size
    zeros = np.zeros((config.batch_size, size), np.float32)
    self._batches: Iterator[Any] = itertools.repeat(
      Sample(zeros, np.zeros(config.batch_size, np.int64))
    )
    self._waited = 0.0
    self._learner = builder.make_learner(
      jax.random.key(0),
      acme_qsm.make_networks(subject.SPEC, config),
      self._timed_batches(),
      environment_spec=subject.SPEC,
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
    _count(self._learner.step, 0.0)
    self._waited = 0.0
    start = time.perf_counter()
    _count(self._learner.step, seconds)
    return self._waited / (time.perf_counter() - start)


def _count(function: Callable[[], Any], seconds: float) -> float:
  """Calls a function 20 times, and then for a while; its calls per second."""
  for _ in range(20):
    function()
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    function()
    count += 1
  return count / (time.perf_counter() - start)


def measure_client(
  builder: acme_qsm.QSMBuilder,
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
    folder: on the disk that replay is saved to.
    pid: the process that has the replay; None for this one.

  Returns:
    What there is to say of it.
  """
  adder = builder.make_adder(client, subject.SPEC)
  empty, _ = read_memory(pid)
  inserting = timing.time_once(lambda: _insert(adder, num_transitions))
  full, _ = read_memory(pid)

  batches = builder.make_dataset_iterator(client)
  samples = builder.config.batch_size * _count(lambda: next(batches), seconds)
  wait_share = waiting.measure(batches, seconds)

  with tempfile.TemporaryDirectory(dir=folder) as saves:
    first, second = pathlib.Path(saves, "1"), pathlib.Path(saves, "2")
    first_save = timing.time_once(lambda: save(first, None))
    _insert(adder, _NUM_NEW)
    next_save = timing.time_once(lambda: save(second, first))
  return {
    "inserts_per_second": num_transitions / inserting,
    "samples_per_second": samples,
    "transitions": num_transitions,
    "bytes_per_transition": (full - empty) / num_transitions,
    # The peak may be that of a save, or, of few transitions, of compiling.
    "peak_bytes_per_transition": (read_memory(pid)[1] - empty)
    / num_transitions,
    "raw_bytes_per_transition": TransitionCodec(subject.SPEC).size * 4,
    "learner_wait_share": wait_share,
    "first_save_seconds": first_save,
    f"save_seconds_{_NUM_NEW}_later": next_save,
  }


def read_memory(pid: int | None = None) -> tuple[int, int]:
  """Bytes that a process (None: this one) has resident, and ever had."""
  status = pathlib.Path("/proc", str(pid or "self"), "status").read_text()
  fields = dict(line.split(":", 1) for line in status.splitlines())
  now, peak = (
    1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")
  )
  # The kernel counts both a little late.
  return now, max(now, peak)


def _insert(adder: Any, num_transitions: int) -> None:
  """Inserts episodes of random numbers, and waits until all are there."""
  random = np.random.default_rng(0)
  # Reverb compresses what repeats itself within an item.
  observations = random.normal(
    size=(_EPISODE_LENGTH, subject.OBSERVATION_SIZE)
  ).astype(np.float32)
  actions = random.uniform(
    -1.0, 1.0, size=(_EPISODE_LENGTH, subject.ACTION_SIZE)
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
