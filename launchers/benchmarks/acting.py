"""How long it takes to act."""

import time
from typing import Any

import jax
import numpy as np

import acme_qsm
from launchers.benchmarks import learner
from launchers.benchmarks import timing


def measure(batch_sizes: list[int], seconds: float) -> dict[str, Any]:
  """Measures latency for one observation and throughput for several.

  Args:
    batch_sizes: numbers of observations at once.
    seconds: how long each is measured.

  Returns:
    What there is to say of it.
  """
  config = learner.make_config()
  networks = learner.make_networks(config)
  core = acme_qsm.make_learner_core(networks, config)
  cpu = jax.devices("cpu")[0]
  with jax.default_device(cpu):
    params = core.policy_params(jax.jit(core.init)(jax.random.key(0)))
    # What acts has learned something: random actions would cost as much.
    params = params._replace(steps=params.steps + 1)
    policy = acme_qsm.make_policy(networks, config)

    @jax.jit
    def act(params, key, observation):
      key, action_key = jax.random.split(key)
      return policy(params, action_key, observation), key

    def latencies(batch_size: int) -> list[float]:
      observation = np.zeros((batch_size, learner.OBSERVATION_SIZE), np.float32)
      key = jax.random.key(0)
      found = []
      end = None
      while end is None or time.perf_counter() < end:
        start = time.perf_counter()
        action, key = act(params, key, observation)
        np.asarray(action)
        found.append(time.perf_counter() - start)
        if end is None:  # The first call compiles.
          found, end = [], time.perf_counter() + seconds
      return found

    one = latencies(1)
    return {
      "median_ms": 1e3 * timing.summarize(one).median,
      "p99_ms": 1e3 * float(np.percentile(one, 99)),
      "actions_per_second": {
        str(size): size / timing.summarize(latencies(size)).median
        for size in batch_sizes
      },
    }
