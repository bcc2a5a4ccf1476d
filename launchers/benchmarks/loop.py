"""How fast the loop of one process is, and where its time goes.

  python -m launchers.benchmarks.loop <task> <learner steps> <seconds>

prints what it has measured as JSON, in its last line. A process of its own, so
that its start and its memory are those of a run.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import numpy as np
import psutil
import reverb

from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from launchers.benchmarks import learner as learner_benchmark
from launchers.benchmarks import timing

# Until then things are compiled, allocated and looked up for the first time.
_WARM_UP_STEPS = 200


class Clock:
  """Adds up the time that parts of a loop take.

  Attributes:
    seconds: by part.
    learner_steps: when each learner step began.
    environment_steps: when each environment step began.
  """

  def __init__(self):
    self.seconds = collections.defaultdict[str, float](float)
    self.learner_steps: list[float] = []
    self.environment_steps: list[float] = []

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Adds the time that passes in this context, but that of parts within."""
    inner = sum(self.seconds.values())
    start = time.perf_counter()
    yield
    elapsed = time.perf_counter() - start
    self.seconds[name] += elapsed - (sum(self.seconds.values()) - inner)


class _Timed:
  """Passes everything on, and times some methods."""

  def __init__(self, timed: Any, clock: Clock, **parts: str):
    self._timed = timed
    self._clock = clock
    self._parts = parts

  def __getattr__(self, name: str) -> Any:
    value = getattr(self._timed, name)
    if name not in self._parts:
      return value

    def call(*args: Any, **kwargs: Any) -> Any:
      with self._clock.part(self._parts[name]):
        return value(*args, **kwargs)

    return call


class _TimedBuilder(QSMBuilder):
  """A builder whose parts are timed."""

  def __init__(self, config: Any, clock: Clock):
    super().__init__(config)
    self._clock = clock

  def make_adder(self, *args: Any, **kwargs: Any) -> Any:
    adder = super().make_adder(*args, **kwargs)
    return _Timed(adder, self._clock, add="insert", add_first="insert")

  def make_actor(self, *args: Any, **kwargs: Any) -> Any:
    actor = super().make_actor(*args, **kwargs)
    # What they observe goes to the adder at once.
    return _Timed(actor, self._clock, select_action="act", update="act")

  def make_dataset_iterator(self, replay_client: Any) -> Any:
    batches = super().make_dataset_iterator(replay_client)
    while True:
      with self._clock.part("sample"):
        batch = next(batches)
      yield batch

  def make_learner(self, *args: Any, **kwargs: Any) -> Any:
    learner = super().make_learner(*args, **kwargs)
    step = learner.step

    def timed_step() -> None:
      self._clock.learner_steps.append(time.perf_counter())
      if len(self._clock.learner_steps) == _WARM_UP_STEPS:
        self._clock.seconds.clear()
      with self._clock.part("update"):
        step()

    learner.step = timed_step
    return learner


class _TimedEnvironment(_Timed):
  """An environment that is timed."""

  def step(self, action: Any) -> Any:
    self._clock.environment_steps.append(time.perf_counter())
    with self._clock.part("environment"):
      return self._timed.step(action)


def measure(task: str, num_steps: int, seconds: float) -> dict[str, Any]:
  """Runs an experiment, and its learner alone.

  Args:
    task: of the dm_control suite, as domain:task.
    num_steps: learner steps, one per environment step, to measure.
    seconds: how long the learner alone is measured.

  Returns:
    What there is to say of it.
  """
  config = dataclasses.replace(
    learner_benchmark.make_config(), min_replay_size=1_000
  )
  clock = Clock()
  builder = _TimedBuilder(config, clock)

  def make_environment(seed: int) -> Any:
    return _TimedEnvironment(environments.make(task, seed), clock)

  with contextlib.redirect_stdout(sys.stderr):
    experiments.run_experiment(
      experiments.ExperimentConfig(
        builder=builder,
        network_factory=lambda spec: make_networks(spec, config),
        environment_factory=make_environment,
        max_num_actor_steps=config.min_replay_size + _WARM_UP_STEPS + num_steps,
        seed=0,
        checkpointing=None,
      ),
      eval_every=10**9,
      num_eval_episodes=0,
    )
  process = psutil.Process()
  first = clock.learner_steps[0]
  since = clock.learner_steps[_WARM_UP_STEPS - 1]
  until = clock.learner_steps[-1]
  made = [t for t in clock.environment_steps if since <= t <= until]
  rate = len(made) / (until - since)
  parts = {
    name: value / (until - since) for name, value in clock.seconds.items()
  }
  alone = _measure_learner_alone(task, config, seconds)
  return {
    "environment_steps_per_second": rate,
    "learner_only_steps_per_second": alone,
    "share_of_learner_rate": rate / alone,
    "shares_of_time": {**parts, "rest": 1.0 - sum(parts.values())},
    "first_update_seconds": time.time()
    - process.create_time()
    - (time.perf_counter() - first),
    "memory_bytes": process.memory_info().rss,
  }


def _measure_learner_alone(task: str, config: Any, seconds: float) -> float:
  """Steps per second of the same learner on one batch, again and again."""
  # Not above: Acme's specs want no loop's environment.
  from acme import specs

  spec = specs.make_environment_spec(environments.make(task, 0))
  builder = QSMBuilder(config)
  server_spec: Any = builder.make_replay_tables(spec)[0].info.signature
  shape = (config.batch_size, *server_spec.shape)
  data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  batch: Any = reverb.ReplaySample(reverb.SampleInfo.zeros(), data)
  learner = builder.make_learner(
    jax.random.key(0),
    make_networks(spec, config),
    itertools.repeat(batch),
    environment_spec=spec,
  )
  found = timing.measure(
    {"learner": learner.step}, repeats=5, seconds=seconds / 5
  )
  return 1.0 / timing.summarize(found["learner"]).median


if __name__ == "__main__":
  print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
