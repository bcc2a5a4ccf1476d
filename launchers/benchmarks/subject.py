"""How fast the learner's step is, against what the machine can do."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import acme_qsm
from acme_qsm.core import ActorCriticConfig
from launchers.benchmarks import timing

OBSERVATION_SIZE, ACTION_SIZE = 17, 6
AXES = {
  "num_denoising_steps": (5, 10, 20),
  "batch_size": (256, 1024, 4096),
  "width": (256, 512),
  "num_fused": (1, 8, 64),
  "num_seeds": (1, 4, 16),
}
"""What is varied, each from its first value."""

_CHAIN_LENGTH = 24


def make_config(
  *, num_denoising_steps: int = 5, batch_size: int = 256, width: int = 256
) -> acme_qsm.QSMConfig:
  """The default configuration, with networks of the given size."""
  return acme_qsm.QSMConfig(
    num_denoising_steps=num_denoising_steps,
    batch_size=batch_size,
    samples_per_insert=float(batch_size),
    policy_hidden_sizes=(width, width),
    critic_hidden_sizes=(width, width),
  )


def make_spec() -> acme_qsm.EnvironmentSpec:
  """Observations and actions of the sizes above."""
  return acme_qsm.EnvironmentSpec(
    observations=acme_qsm.ArraySpec((OBSERVATION_SIZE,)),
    actions=acme_qsm.ArraySpec((ACTION_SIZE,), minimum=-1.0, maximum=1.0),
  )


def make_networks(config: ActorCriticConfig) -> acme_qsm.DiffusionNetworks:
  """Networks for them."""
  return acme_qsm.make_networks(make_spec(), config)


def make_transitions(*leading: int) -> acme_qsm.Transition:
  """Random transitions with the given leading axes."""
  random = np.random.default_rng(0)

  def draw(*shape: int) -> jax.Array:
    return jnp.asarray(random.normal(size=(*leading, *shape)), jnp.float32)

  return acme_qsm.Transition(
    observation=draw(OBSERVATION_SIZE),
    action=jnp.tanh(draw(ACTION_SIZE)),
    reward=draw(),
    discount=jnp.ones(leading, jnp.float32),
    next_observation=draw(OBSERVATION_SIZE),
  )


def make_limit(batch_size: int, width: int) -> tuple[Callable[[], Any], float]:
  """A chain of the update's main products, each waiting for the one before.

  Returns:
    A function that computes it, and its floating-point operations.
  """
  random = np.random.default_rng(0)
  scale = 1.0 / np.sqrt(width)
  x = jnp.asarray(random.normal(size=(batch_size, width)), jnp.float32)
  weights = [
    jnp.asarray(scale * random.normal(size=(width, width)), jnp.float32)
    for _ in range(4)
  ]

  @jax.jit
  def chain(x: jax.Array, weights: list[jax.Array]) -> jax.Array:
    for i in range(_CHAIN_LENGTH):
      x = x @ weights[i % len(weights)]
    return x

  flops = 2.0 * batch_size * width * width * _CHAIN_LENGTH
  return lambda: chain(x, weights), flops


def _jit(step: Callable[..., Any]) -> Any:
  # As the Acme learner does on a CPU, where a call that donates its arguments
  # returns only when it is done.
  donated = () if jax.default_backend() == "cpu" else (0,)
  return jax.jit(step, donate_argnums=donated)


def make_step(
  core: acme_qsm.LearnerCore,
) -> Callable[[Any, acme_qsm.Transition], Any]:
  """A core's step, with what it does of replay's extras if it has any."""

  def step(state: Any, batch: acme_qsm.Transition) -> Any:
    if core.update_extras is not None:
      batch = batch._replace(extras={"moved_action": batch.action})
    return core.step_with_extras(state, batch)

  return step


@functools.lru_cache
def _compile_step(config: ActorCriticConfig) -> jax.stages.Compiled:
  core = acme_qsm.make_learner_core(make_networks(config), config)
  state = jax.eval_shape(core.init, jax.random.key(0))
  batch = make_transitions(config.batch_size)
  return _jit(make_step(core)).lower(state, batch).compile()


class Step:
  """A learner whose step is called on the same transitions again and again.

  Attributes:
    flops: XLA's count of a step's floating-point operations.
    memory_bytes: what one compiled step needs at once by XLA's plan: its
      arguments, its results, and what it keeps on the way.
  """

  def __init__(
    self,
    config: ActorCriticConfig,
    *,
    num_fused: int = 1,
    num_seeds: int = 1,
  ):
    core = acme_qsm.make_learner_core(make_networks(config), config)
    # What XLA counts of a loop is one turn of it: count one step.
    one = _compile_step(config)
    cost: Any = one.cost_analysis()
    self.flops = float(cost["flops"])
    memory: Any = one.memory_analysis()
    self.memory_bytes = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
    )
    keys = jax.random.split(jax.random.key(0), num_seeds)
    if num_seeds == 1:
      self._state = jax.jit(core.init)(keys[0])
      step = make_step(core)
      batch = make_transitions(config.batch_size)
    else:
      self._state = jax.jit(jax.vmap(core.init))(keys)
      step = jax.vmap(make_step(core))
      batch = make_transitions(num_seeds, config.batch_size)
    if num_fused > 1:
      batch = make_transitions(num_fused, *batch.reward.shape)
      step = functools.partial(jax.lax.scan, step)
    self._batch = batch
    self._step = one if num_fused == num_seeds == 1 else _jit(step)

  def __call__(self) -> Any:
    """Makes a step; returns its metrics."""
    self._state, (metrics, _) = self._step(self._state, self._batch)
    return metrics


@dataclasses.dataclass(frozen=True)
class Case:
  """What one measurement is of; see `AXES`."""

  num_denoising_steps: int = 5
  batch_size: int = 256
  width: int = 256
  num_fused: int = 1
  num_seeds: int = 1


def list_cases(quick: bool, full: bool) -> list[Case]:
  """Lists what to measure.

  Args:
    quick: the standard case, fused and not, alone.
    full: every combination of all but the seeds; else one axis at a time.
  """
  if quick:
    return [Case(), Case(num_fused=8)]
  seeds = [Case(num_seeds=num_seeds) for num_seeds in AXES["num_seeds"]]
  others = {name: axis for name, axis in AXES.items() if name != "num_seeds"}
  if full:
    combinations = itertools.product(*others.values())
    cases = [Case(*combination) for combination in combinations]
  else:
    cases = [
      Case(**{name: value}) for name, axis in others.items() for value in axis
    ]
  return list(dict.fromkeys([*cases, *seeds]))


def measure(
  cases: list[Case], *, repeats: int, seconds: float
) -> Iterator[dict[str, Any]]:
  """Measures each case in turn with the machine's limit for its shapes.

  Args:
    cases: what to measure.
    repeats: how often each is measured.
    seconds: how long each time.

  Yields:
    For each case, what there is to say of it.
  """
  for case in cases:
    config = make_config(
      num_denoising_steps=case.num_denoising_steps,
      batch_size=case.batch_size,
      width=case.width,
    )
    step = Step(config, num_fused=case.num_fused, num_seeds=case.num_seeds)
    limit, limit_flops = make_limit(case.batch_size, case.width)
    found = timing.measure(
      {"limit": limit, "step": step}, repeats=repeats, seconds=seconds
    )
    # Of all that one call does.
    steps_per_call = case.num_fused * case.num_seeds
    # Each pair of neighbours in time, so that both had the same machine.
    shares = [
      steps_per_call * step.flops / step_seconds / (limit_flops / limit_seconds)
      for step_seconds, limit_seconds in zip(
        found["step"], found["limit"], strict=True
      )
    ]
    call = timing.summarize(found["step"])
    yield {
      **dataclasses.asdict(case),
      "milliseconds_per_call": call.describe(),
      "steps_per_second": steps_per_call / call.median,
      "gflop_per_step": step.flops / 1e9,
      "gflops": steps_per_call * step.flops / call.median / 1e9,
      "limit_gflops": limit_flops
      / timing.summarize(found["limit"]).median
      / 1e9,
      "share_of_limit": timing.summarize(shares).median,
      "device_memory_bytes": _device_memory(),
    }


def _device_memory() -> int | None:
  """Most bytes in use at once so far, where the device counts them."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get("peak_bytes_in_use") if stats else None
