"""How fast the learner's step and actions are, against what the machine can."""

import functools
import itertools
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from launchers.benchmarks import subject
from launchers.benchmarks import timing
from launchers.benchmarks.report import Row

AXES = {
  "num_denoising_steps": (5, 10, 20),
  "batch_size": (256, 1024, 4096),
  "width": (256, 512),
  "num_fused": (1, 8, 64),
  "num_seeds": (1, 4, 16),
}
"""What is varied, each from its first value."""

_CHAIN_LENGTH = 24
_NUM_OBSERVATIONS = (1, 16, 256)


STANDARD = {name: axis[0] for name, axis in AXES.items()}
"""The case that the others are compared with."""


def list_cases(effort: timing.Effort) -> list[dict[str, int]]:
  """The standard case, then one axis at a time; full, combined but seeds."""
  if effort.quick:
    return [STANDARD, STANDARD | {"num_fused": 8}]
  axes = dict(AXES)
  cases = [STANDARD]
  if effort.full:
    seeds = axes.pop("num_seeds")
    cases = [
      STANDARD | dict(zip(axes, sizes, strict=True))
      for sizes in itertools.product(*axes.values())
    ]
    axes = {"num_seeds": seeds}
  for name, values in axes.items():
    cases += [STANDARD | {name: value} for value in values[1:]]
  return cases


def make_limit(batch_size: int, width: int) -> tuple[Callable[[], Any], float]:
  """A chain of the update's main products, and how many operations it is."""
  random = np.random.default_rng(0)
  scale = 1.0 / np.sqrt(width)
  x = jnp.asarray(random.normal(size=(batch_size, width)), jnp.float32)
  weights = jnp.asarray(
    scale * random.normal(size=(4, width, width)), jnp.float32
  )

  @jax.jit
  def chain(x: jax.Array, weights: jax.Array) -> jax.Array:
    for i in range(_CHAIN_LENGTH):
      x = x @ weights[i % len(weights)]
    return x

  flops = 2.0 * batch_size * width * width * _CHAIN_LENGTH
  return lambda: chain(x, weights), flops


def measure(effort: timing.Effort) -> Iterator[Row]:
  """Measures each case in turn with the machine's limit for its shapes."""
  for case in list_cases(effort):
    sizes = dict(case)
    num_fused, num_seeds = sizes.pop("num_fused"), sizes.pop("num_seeds")
    step = subject.Step(
      subject.make_config(**sizes), num_fused=num_fused, num_seeds=num_seeds
    )
    limit, limit_flops = make_limit(case["batch_size"], case["width"])
    found = timing.measure({"limit": limit, "step": step}, **effort.turns())
    steps_per_call = num_fused * num_seeds
    flops = steps_per_call * step.flops
    # Each pair of neighbours in time, so that both had the same machine.
    shares = [
      flops / step_seconds / (limit_flops / limit_seconds)
      for step_seconds, limit_seconds in zip(
        found["step"], found["limit"], strict=True
      )
    ]
    call = timing.summarize(found["step"])
    low, median, high = timing.summarize(found["step"], 1e3)
    yield (
      "learner",
      {
        **case,
        "ms_per_call": median,
        "ms_low": low,
        "ms_high": high,
        "steps_per_second": steps_per_call / call.median,
        "gflop_per_step": step.flops / 1e9,
        "limit_gflops": limit_flops
        / timing.summarize(found["limit"]).median
        / 1e9,
        "share_of_limit": timing.summarize(shares).median,
        "device_memory_bytes": _device_memory(),
      },
    )


def _device_memory() -> int | None:
  """Most bytes in use at once so far, where the device counts them."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get("peak_bytes_in_use") if stats else None


def measure_acting(effort: timing.Effort) -> Iterator[Row]:
  """Measures how long actions for one and for several observations take."""
  seconds = 0.5 if effort.quick else 5.0
  with jax.default_device(jax.devices("cpu")[0]):
    policy, params = subject.make_policy(subject.make_config())

    @jax.jit
    def act(params: Any, key: jax.Array, observation: jax.Array) -> Any:
      key, action_key = jax.random.split(key)
      return policy(params, action_key, observation), key

    for size in _NUM_OBSERVATIONS:
      observation = np.zeros((size, subject.OBSERVATION_SIZE), np.float32)
      latencies = list(
        _latencies(functools.partial(act, params), observation, seconds)
      )
      median = timing.summarize(latencies, 1e3).median
      yield (
        "acting",
        {
          "observations": size,
          "median_ms": median,
          "p99_ms": 1e3 * float(np.percentile(latencies, 99)),
          "actions_per_second": 1e3 * size / median,
        },
      )


def _latencies(
  act: Callable[..., Any], observation: np.ndarray, seconds: float
) -> Iterator[float]:
  _, key = act(jax.random.key(0), observation)  # The first call compiles.
  end = time.perf_counter() + seconds
  while (start := time.perf_counter()) < end:
    action, key = act(key, observation)
    np.asarray(action)
    yield time.perf_counter() - start
