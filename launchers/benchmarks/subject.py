"""What benchmarks measure: sizes, a configuration and its learner step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import acme_qsm
from acme_qsm.core import Policy

OBSERVATION_SIZE, ACTION_SIZE = 17, 6
SPEC = acme_qsm.EnvironmentSpec(
  observations=acme_qsm.ArraySpec((OBSERVATION_SIZE,)),
  actions=acme_qsm.ArraySpec((ACTION_SIZE,), minimum=-1.0, maximum=1.0),
)


def make_config(
  *,
  num_denoising_steps: int = 5,
  batch_size: int = 256,
  width: int = 256,
  **fields: Any,
) -> acme_qsm.QSMConfig:
  """The default configuration, with networks of the given size."""
  return acme_qsm.QSMConfig(
    num_denoising_steps=num_denoising_steps,
    batch_size=batch_size,
    samples_per_insert=float(batch_size),
    policy_hidden_sizes=(width, width),
    critic_hidden_sizes=(width, width),
    **fields,
  )


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


def make_core(config: Any) -> acme_qsm.LearnerCore:
  """The learner core of a method's configuration, for `SPEC`."""
  networks = acme_qsm.make_networks(SPEC, config)
  return acme_qsm.make_learner_core(networks, config)


def make_policy(config: Any) -> tuple[Policy, Any]:
  """A method's policy for `SPEC`, and parameters for it."""
  core = make_core(config)
  params = core.policy_params(jax.jit(core.init)(jax.random.key(0)))
  networks = acme_qsm.make_networks(SPEC, config)
  return acme_qsm.make_policy(networks, config), params


def make_step(
  core: acme_qsm.LearnerCore,
) -> Callable[[Any, acme_qsm.Transition], Any]:
  """A core's step, with what it does of replay's extras if it has any."""

  def step(state: Any, batch: acme_qsm.Transition) -> Any:
    if core.update_extras is not None:
      batch = batch._replace(extras={"moved_action": batch.action})
    return core.step_with_extras(state, batch)

  return step


def _jit(step: Callable[..., Any]) -> Any:
  # As the learner does: on a CPU, a call that donates its arguments returns
  # only when it is done.
  donated = () if jax.default_backend() == "cpu" else (0,)
  return jax.jit(step, donate_argnums=donated)


class Step:
  """A learner whose step is called on the same transitions again and again.

  Attributes:
    flops: XLA's count of a step's floating-point operations.
    memory_bytes: what one compiled step needs at once by XLA's plan: its
      arguments, its results, and what it keeps on the way.
  """

  def __init__(self, config: Any, *, num_fused: int = 1, num_seeds: int = 1):
    """Compiles a step of so many gradient steps and seeds per call."""
    core = make_core(config)
    init, step = core.init, make_step(core)
    batch = make_transitions(config.batch_size)
    # XLA counts one turn of a loop, so that a single step is what to count.
    state = jax.eval_shape(init, jax.random.key(0))
    one = _jit(step).lower(state, batch).compile()
    cost: Any = one.cost_analysis()
    self.flops = float(cost["flops"])
    memory: Any = one.memory_analysis()
    self.memory_bytes = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
    )
    key = jax.random.key(0)
    if num_seeds > 1:
      init, step = jax.vmap(init), jax.vmap(step)
      key = jax.random.split(key, num_seeds)
      batch = make_transitions(num_seeds, config.batch_size)
    if num_fused > 1:
      step = functools.partial(jax.lax.scan, step)
      batch = make_transitions(num_fused, *batch.reward.shape)
    self._state, self._batch = jax.jit(init)(key), batch
    self._step = one if num_fused == num_seeds == 1 else _jit(step)

  def __call__(self) -> Any:
    """Makes a step; returns its metrics."""
    self._state, (metrics, _) = self._step(self._state, self._batch)
    return metrics
