"""How fast the loop of a run is, and where the time of its steps goes."""

import collections
import contextlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import acme_qsm
from acme_qsm import environments
from launchers.benchmarks import replay as replay_benchmark
from launchers.benchmarks import report
from launchers.benchmarks import runs
from launchers.benchmarks import subject
from launchers.benchmarks import timing

# During them things are compiled, allocated and looked up for the first time.
_WARM_UP_STEPS = 200
# How often the loop and its learner alone are measured in turn.
_NUM_TURNS = 10


def measure(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures loops by task and replay, each in a process of its own.

  So their memory is that of a run.
  """
  steps = 300 if effort.quick else 3_000
  for task in ("cheetah",) if effort.quick else runs.TASKS:
    for replay, how in replay_benchmark.list_replays(effort).items():
      try:
        found = timing.isolate(measure_loop, runs.TASKS[task], steps, *how)
      except ModuleNotFoundError as error:
        report.leave_out(replay, error)
        continue
      name, parts = f"{task}, {replay}", found.pop("parts")
      yield "loop", {"loop": name, **found}
      yield "ms_per_step", {"ms per step": name, **parts}


class Clock:
  """Adds up the time that parts of a loop take.

  Attributes:
    seconds: by part, without those of parts within.
    calls: how often each was called.
  """

  def __init__(self):
    self.seconds = collections.defaultdict[str, float](float)
    self.calls = collections.Counter[str]()

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Adds the time that passes in this context."""
    inner = sum(self.seconds.values())
    start = time.perf_counter()
    yield
    elapsed = time.perf_counter() - start
    self.seconds[name] += elapsed - (sum(self.seconds.values()) - inner)
    self.calls[name] += 1

  def time(self, owner: Any, part: str, *methods: str) -> Any:
    """Has an object's methods timed as a part; returns the object."""
    for name in methods:
      setattr(owner, name, self.part(part)(getattr(owner, name)))
    return owner


class _TimedBuilder(acme_qsm.QSMBuilder):
  """A builder whose parts are timed.

  Attributes:
    clock: what times them.
    turns: of each measurement of the loop, its environment steps, the seconds
      of each part, which are all of them together, and the learner's steps per
      second alone, right after.
  """

  def __init__(self, config: Any, steps_per_turn: int):
    super().__init__(config)
    self.clock = Clock()
    self.turns: list[tuple[int, dict[str, float], float]] = []
    self._steps_per_turn = steps_per_turn
    self._repeats_batch = False

  def make_adder(self, *args: Any, **kwargs: Any) -> Any:
    adder = super().make_adder(*args, **kwargs)
    return self.clock.time(adder, "insert", "add", "add_first")

  def make_actor(self, *args: Any, **kwargs: Any) -> Any:
    actor = super().make_actor(*args, **kwargs)
    # An actor's `observe` is its adder's `add`.
    return self.clock.time(actor, "act", "select_action", "update")

  def make_dataset_iterator(self, replay_client: Any) -> Any:
    batches = super().make_dataset_iterator(replay_client)
    while True:
      with self.clock.part("sample"):
        batch = next(batches)
      yield batch

  def _repeat_or_pass_on(self, batches: Iterator[Any]) -> Iterator[Any]:
    batch: Any = None
    while True:
      batch = batch if self._repeats_batch else next(batches)
      yield batch

  def make_learner(
    self,
    random_key: Any,
    networks: Any,
    dataset: Any,
    *args: Any,
    **kwargs: Any,
  ) -> Any:
    dataset = self._repeat_or_pass_on(dataset)
    learner: Any = super().make_learner(
      random_key, networks, dataset, *args, **kwargs
    )
    step, steps, start = learner.step, 0, 0.0

    def wait() -> None:
      jax.block_until_ready(learner.get_variables(["critic"]))

    def make_steps() -> float:
      """Steps per second on one batch, again and again."""
      self._repeats_batch = True
      num_steps = self._steps_per_turn // 4
      start = time.perf_counter()
      for _ in range(num_steps):
        step()
      wait()
      self._repeats_batch = False
      return num_steps / (time.perf_counter() - start)

    def timed_step() -> None:
      nonlocal steps, start
      if steps >= _WARM_UP_STEPS and (
        (steps - _WARM_UP_STEPS) % self._steps_per_turn == 0
      ):
        wait()
        if steps > _WARM_UP_STEPS:
          elapsed = time.perf_counter() - start
          parts = dict(self.clock.seconds)
          parts["rest"] = elapsed - sum(parts.values())
          steps_made = self.clock.calls["environment"]
          self.turns.append((steps_made, parts, make_steps()))
        self.clock.seconds.clear()
        self.clock.calls.clear()
        start = time.perf_counter()
      steps += 1
      # The step would wait by itself; here waiting and dispatch are told apart.
      with self.clock.part("wait for update"):
        wait()
      with self.clock.part("dispatch"):
        step()

    learner.step = timed_step
    return learner


def measure_loop(
  task: str,
  num_steps: int,
  replay: Any = "auto",
  transitions_per_item: int = 1,
) -> dict[str, Any]:
  """Runs an experiment; measures it and its learner alone in turn.

  Args:
    task: of the dm_control suite, as domain:task.
    num_steps: learner steps, one per environment step, to measure.
    replay: which replay.
    transitions_per_item: how many replay in Reverb stores together.

  Returns:
    What there is to say of it; `parts` are milliseconds of an environment step.
    The part "rest" is display, logs, counts and what else happens between the
    others. The update is computed beside most of them: what they take longer
    for it is theirs, and what is left of it then is waited for.
  """
  config = subject.make_config(
    min_replay_size=1_000, transitions_per_item=transitions_per_item
  )
  steps_per_turn = num_steps // _NUM_TURNS
  builder = _TimedBuilder(config, steps_per_turn)
  # With a folder, since a run writes logs.
  with tempfile.TemporaryDirectory() as folder:
    runs.run(
      builder,
      lambda spec: acme_qsm.make_networks(spec, config),
      lambda seed: builder.clock.time(
        environments.make(task, seed), "environment", "step"
      ),
      config.min_replay_size + _WARM_UP_STEPS + num_steps + 1,
      folder,
      replay=replay,
    )
  steps, seconds, alone = zip(*builder.turns, strict=True)
  rates = np.divide(steps, [sum(parts.values()) for parts in seconds])
  # Each with its neighbour in time, so that both had the same machine.
  share = timing.summarize([*np.divide(rates, alone)])
  alone_rate = timing.summarize(alone).median
  return {
    "environment_steps_per_second": timing.summarize([*rates]).median,
    "learner_only_steps_per_second": alone_rate,
    "share_of_learner_rate": share.median,
    "share_low": share.low,
    "share_high": share.high,
    "peak_memory_mb": replay_benchmark.read_memory()[1] / 1e6,
    "parts": {
      **{
        name: 1e3 * sum(parts.get(name, 0.0) for parts in seconds) / sum(steps)
        for name in seconds[0]
      },
      "update alone": 1e3 / alone_rate,
    },
  }
