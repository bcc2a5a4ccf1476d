"""How fast transitions go into replay and batches come out of it.

  python -m launchers.benchmarks.replay <transitions per item>

serves an empty table, in a process of its own, until its input ends; it prints
the port.
"""

import contextlib
import dataclasses
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import jax
import numpy as np
import psutil
import reverb
from acme import specs

from acme_qsm import QSMBuilder
from acme_qsm.replay.codec import TransitionCodec
from launchers.benchmarks import learner as learner_benchmark

_EPISODE_LENGTH = 1_000


def _make_spec() -> specs.EnvironmentSpec:
  def bounded(size: int) -> specs.BoundedArray:
    return specs.BoundedArray((size,), np.float32, -1.0, 1.0)

  return specs.EnvironmentSpec(
    observations=bounded(learner_benchmark.OBSERVATION_SIZE),
    actions=bounded(learner_benchmark.ACTION_SIZE),
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  )


def _make_builder(transitions_per_item: int) -> QSMBuilder:
  return QSMBuilder(
    dataclasses.replace(
      learner_benchmark.make_config(), transitions_per_item=transitions_per_item
    )
  )


def _make_server(transitions_per_item: int) -> reverb.Server:
  """A server like a run's, but nobody waits for anybody."""
  (table,) = _make_builder(transitions_per_item).make_replay_tables(
    _make_spec()
  )
  return reverb.Server(
    [table.replace(rate_limiter=reverb.rate_limiters.MinSize(1))]
  )


@contextlib.contextmanager
def _local_server(
  transitions_per_item: int,
) -> Iterator[tuple[reverb.Client, psutil.Process]]:
  server = _make_server(transitions_per_item)
  try:
    yield server.localhost_client(), psutil.Process()
  finally:
    server.stop()


class _SeparateServer:
  """A server in a process of its own, which takes some seconds to start."""

  def __init__(self, transitions_per_item: int):
    self._process = subprocess.Popen(
      [sys.executable, "-m", __name__, str(transitions_per_item)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def connect(self) -> tuple[reverb.Client, psutil.Process]:
    """Waits until it serves."""
    output = self._process.stdout
    assert output is not None
    # Whatever else the libraries print comes before.
    port = next(line for line in output if line.startswith("port "))
    client = reverb.Client(f"localhost:{port.split()[1]}")
    return client, psutil.Process(self._process.pid)

  def stop(self) -> None:
    """Stops it."""
    self._process.communicate()


class _Waiting:
  """A learner whose waiting for batches is measured.

  A batch is waited for if no update is running any more when it comes: then all
  of the time that it took counts, although an update may have covered a part.
  """

  def __init__(self, builder: QSMBuilder, spec: specs.EnvironmentSpec):
    config = builder.config
    size = config.transitions_per_item * TransitionCodec(spec).size
    zeros = np.zeros((config.batch_size, size), np.float32)
    self._batches: Iterator[Any] = itertools.repeat(
      reverb.ReplaySample(reverb.SampleInfo.zeros(), zeros)
    )
    self._waited = 0.0
    self._learner = builder.make_learner(
      jax.random.key(0),
      learner_benchmark.make_networks(builder.config),
      self._timed_batches(),
      environment_spec=spec,
    )
    # Compiles it.
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


def measure(
  num_transitions: int, seconds: float, transitions_per_item: int = 1
) -> dict[str, Any]:
  """Measures replay in this process, and in another.

  Args:
    num_transitions: how many are inserted.
    seconds: how long each sampling is measured.
    transitions_per_item: how many are stored together.

  Returns:
    What there is to say of it.
  """
  separate_server = _SeparateServer(transitions_per_item)
  try:
    builder = _make_builder(transitions_per_item)
    waiting = _Waiting(builder, _make_spec())
    found = {}
    # It has started before anything is measured.
    separate = separate_server.connect()
    with _local_server(transitions_per_item) as local:
      found["local"] = _measure(
        builder, waiting, *local, num_transitions, seconds
      )
    found["separate"] = _measure(
      builder, waiting, *separate, num_transitions, seconds
    )
  finally:
    separate_server.stop()
  return found


def _measure(
  builder: QSMBuilder,
  waiting: _Waiting,
  client: reverb.Client,
  process: psutil.Process,
  num_transitions: int,
  seconds: float,
) -> dict[str, float]:
  adder = builder.make_adder(client, _make_spec())
  random = np.random.default_rng(0)
  # Reverb compresses what repeats itself within an item.
  observations = random.normal(
    size=(_EPISODE_LENGTH, learner_benchmark.OBSERVATION_SIZE)
  ).astype(np.float32)
  actions = random.uniform(
    -1.0, 1.0, size=(_EPISODE_LENGTH, learner_benchmark.ACTION_SIZE)
  ).astype(np.float32)
  empty = process.memory_info().rss
  start = time.perf_counter()
  for i in range(num_transitions):
    step = i % _EPISODE_LENGTH
    if step == 0:
      adder.add_first(dm_env.restart(observations[0]))
    last = step == _EPISODE_LENGTH - 1
    make_timestep = dm_env.truncation if last else dm_env.transition
    adder.add(actions[step], make_timestep(0.0, observations[step]))
  adder.reset()
  inserts = num_transitions / (time.perf_counter() - start)
  full = process.memory_info().rss

  batches = builder.make_dataset_iterator(client)
  batch_size = builder.config.batch_size
  for _ in range(20):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    next(batches)
    count += batch_size
  samples = count / (time.perf_counter() - start)
  return {
    "inserts_per_second": inserts,
    "samples_per_second": samples,
    "transitions": num_transitions,
    "bytes_per_transition": (full - empty) / num_transitions,
    "raw_bytes_per_transition": TransitionCodec(_make_spec()).size * 4,
    "learner_wait_share": waiting.measure(batches, seconds),
  }


if __name__ == "__main__":
  served = _make_server(int(sys.argv[1]))
  print(f"port {served.port}", flush=True)
  sys.stdin.read()
  served.stop()
