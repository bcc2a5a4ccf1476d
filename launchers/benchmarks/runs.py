"""How fast the loop of one process is, and where its time goes.

  python -m launchers.benchmarks.loop <task> <learner steps> <replay>
    <transitions per item>

prints what it has measured as JSON, in its last line. A process of its own, so
that its memory is that of a run.
"""

import collections
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import jax

from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm.experiments.one_process.local_replay import ReplayKind
from acme_qsm.experiments.surroundings import compilation_cache
from launchers.benchmarks import learner as learner_benchmark
from launchers.benchmarks import machine
from launchers.benchmarks import timing

# Until then things are compiled, allocated and looked up for the first time.
_WARM_UP_STEPS = 200
# How often the loop and its learner alone are measured in turn.
_NUM_TURNS = 10


class Clock:
  """Adds up the time that parts of a loop take.

  Attributes:
    seconds: by part.
    environment_steps: how many there were.
  """

  def __init__(self):
    self.seconds = collections.defaultdict[str, float](float)
    self.environment_steps = 0

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Adds the time that passes in this context, but that of parts within."""
    inner = sum(self.seconds.values())
    start = time.perf_counter()
    yield
    elapsed = time.perf_counter() - start
    self.seconds[name] += elapsed - (sum(self.seconds.values()) - inner)


class Turn(NamedTuple):
  """One measurement of the loop, and of its learner alone right after.

  Attributes:
    seconds: how long the loop was measured.
    environment_steps: that the loop made then.
    parts: seconds of each part of the loop.
    learner_only_rate: learner steps per second without the loop.
  """

  seconds: float
  environment_steps: int
  parts: dict[str, float]
  learner_only_rate: float


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
  """A builder whose parts are timed.

  Attributes:
    turns: what was measured.
  """

  def __init__(self, config: Any, clock: Clock, steps_per_turn: int):
    super().__init__(config)
    self._clock = clock
    self._steps_per_turn = steps_per_turn
    self._repeats_batch = False
    self.turns: list[Turn] = []

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
    learner = super().make_learner(
      random_key, networks, dataset, *args, **kwargs
    )
    step = learner.step
    steps_made = 0
    turn_start, environment_steps = 0.0, 0

    def timed_step() -> None:
      nonlocal steps_made, turn_start, environment_steps
      since_warm_up = steps_made - _WARM_UP_STEPS
      if since_warm_up >= 0 and since_warm_up % self._steps_per_turn == 0:
        jax.block_until_ready(learner.get_variables(["critic"]))
        if since_warm_up:
          self.turns.append(
            Turn(
              time.perf_counter() - turn_start,
              self._clock.environment_steps - environment_steps,
              dict(self._clock.seconds),
              self._measure_alone(learner, step),
            )
          )
        self._clock.seconds.clear()
        environment_steps = self._clock.environment_steps
        turn_start = time.perf_counter()
      steps_made += 1
      # It would wait by itself, where its dispatch could not be told from it.
      with self._clock.part("wait for update"):
        jax.block_until_ready(learner.get_variables(["critic"]))
      with self._clock.part("dispatch"):
        step()

    learner.step = timed_step
    return learner

  def _measure_alone(self, learner: Any, step: Callable[[], None]) -> float:
    """Steps per second of the learner on one batch, again and again."""
    num_steps = self._steps_per_turn // 4
    self._repeats_batch = True
    start = time.perf_counter()
    for _ in range(num_steps):
      step()
    jax.block_until_ready(learner.get_variables(["critic"]))
    self._repeats_batch = False
    return num_steps / (time.perf_counter() - start)


class _TimedEnvironment(_Timed):
  """An environment that is timed."""

  def step(self, action: Any) -> Any:
    self._clock.environment_steps += 1
    with self._clock.part("environment"):
      return self._timed.step(action)


def measure(
  task: str,
  num_steps: int,
  replay: ReplayKind = "auto",
  transitions_per_item: int = 1,
) -> dict[str, Any]:
  """Runs an experiment; measures it and its learner alone in turn.

  Args:
    task: of the dm_control suite, as domain:task.
    num_steps: learner steps, one per environment step, to measure.
    replay: which replay.
    transitions_per_item: how many replay in Reverb stores together.

  Returns:
    What there is to say of it.
  """
  config = dataclasses.replace(
    learner_benchmark.make_config(),
    min_replay_size=1_000,
    transitions_per_item=transitions_per_item,
  )
  clock = Clock()
  steps_per_turn = num_steps // _NUM_TURNS
  builder = _TimedBuilder(config, clock, steps_per_turn)

  def make_environment(seed: int) -> Any:
    return _TimedEnvironment(environments.make(task, seed), clock)

  last_step = _WARM_UP_STEPS + _NUM_TURNS * steps_per_turn + 1
  with (
    contextlib.redirect_stdout(sys.stderr),
    tempfile.TemporaryDirectory() as folder,
  ):
    experiments.run_experiment(
      experiments.ExperimentConfig(
        builder=builder,
        network_factory=lambda spec: make_networks(spec, config),
        environment_factory=make_environment,
        max_num_actor_steps=config.min_replay_size + last_step,
        seed=0,
        # Logs take their time in a run.
        checkpointing=experiments.CheckpointingConfig(
          directory=folder, add_uid=False
        ),
      ),
      eval_every=10**9,
      num_eval_episodes=0,
      replay=replay,
    )
  turns = builder.turns
  rates = [turn.environment_steps / turn.seconds for turn in turns]
  alone = [turn.learner_only_rate for turn in turns]
  # Each with its neighbour in time, so that both had the same machine.
  shares = [rate / each for rate, each in zip(rates, alone, strict=True)]
  share = timing.summarize(shares)
  return {
    "environment_steps_per_second": timing.summarize(rates).median,
    "learner_only_steps_per_second": timing.summarize(alone).median,
    "share_of_learner_rate": share.median,
    "share_of_learner_rate_spread": [share.low, share.high],
    "milliseconds_per_step": _budget(turns),
    "update_alone_milliseconds": 1e3 / timing.summarize(alone).median,
    "peak_memory_bytes": machine.memory().peak,
  }


def _budget(turns: list[Turn]) -> dict[str, float]:
  """Milliseconds that each part takes of an environment step, and the rest.

  The rest is display, logs, counts and what else happens between the parts.
  The update is computed beside most of them: what they take longer for it is
  theirs, and what is left of it then is waited for.
  """
  steps = sum(turn.environment_steps for turn in turns)
  parts = {
    name: 1e3 * sum(turn.parts.get(name, 0.0) for turn in turns) / steps
    for name in turns[0].parts
  }
  whole = 1e3 * sum(turn.seconds for turn in turns) / steps
  return {**parts, "rest": whole - sum(parts.values())}


if __name__ == "__main__":
  compilation_cache.use()
  _task, _num_steps, _replay, _per_item = sys.argv[1:]
  print(
    json.dumps(measure(_task, int(_num_steps), _replay, int(_per_item)))  # pyright: ignore[reportArgumentType]
  )
