"""Q-score matching's whole loop as its official implementation describes it.

Rebuilt from that description, for a comparison: networks of 2 x 512 over
concatenated inputs, T = 5, one-step returns, a replay of arrays in numpy, and
an action, an environment step, a batch and an update in turn.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from acme_qsm import diffusion
from acme_qsm import environments
from acme_qsm.experiments.surroundings import compilation_cache

_TASK = "cheetah:run"
_WIDTHS = (512, 512)
_BATCH_SIZE = 256
_NUM_STEPS = 5
_SCALE = 50.0
_NOISE = 0.1
_WARM_UP_STEPS = 300
_FIRST_UPDATE = 1_000

_SCHEDULE = diffusion.make_schedule("vp", _NUM_STEPS)
_OPTIMIZER = optax.adam(3e-4)


@hk.without_apply_rng
@hk.transform
def _denoiser(
  observation: jax.Array, action: jax.Array, step: jax.Array
) -> jax.Array:
  frequencies = hk.get_parameter(
    "frequencies", [32], init=hk.initializers.RandomNormal(0.2)
  )
  angles = 2.0 * jnp.pi * step[:, None] * frequencies
  features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  condition = hk.nets.MLP([128, 128], activation=jax.nn.mish)(features)
  inputs = jnp.concatenate([action, observation, condition], axis=-1)
  return hk.nets.MLP([*_WIDTHS, action.shape[-1]], activation=jax.nn.mish)(
    inputs
  )


@hk.without_apply_rng
@hk.transform
def _critic(observation: jax.Array, action: jax.Array) -> jax.Array:
  inputs = jnp.concatenate([observation, action], axis=-1)
  return hk.nets.MLP([*_WIDTHS, 1])(inputs)[:, 0]


_q_values = jax.vmap(_critic.apply, in_axes=(0, None, None))


def init(observation: jax.Array, action: jax.Array) -> dict[str, Any]:
  """The first state, for observations [1, O] and actions [1, A] like these."""
  key = jax.random.key(0)
  policy = _denoiser.init(key, observation, action, jnp.zeros((1,)))
  critics = jax.vmap(lambda key: _critic.init(key, observation, action))(
    jax.random.split(key, 2)
  )
  return {
    "policy": (policy, _OPTIMIZER.init(policy)),
    "critics": (critics, _OPTIMIZER.init(critics)),
    "target": critics,
    "key": key,
  }


def _descend(learned: Any, loss: Callable[[Any], jax.Array]) -> Any:
  """One step of the optimiser down a loss, for parameters and its state."""
  params, optimizer = learned
  changes, optimizer = _OPTIMIZER.update(jax.grad(loss)(params), optimizer)
  return optax.apply_updates(params, changes), optimizer


@functools.partial(jax.jit, static_argnames="size")
def act(
  policy: Any, key: jax.Array, observation: jax.Array, *, size: int
) -> tuple[jax.Array, jax.Array]:
  """Actions [B, size] for observations [B, O], and the next key."""
  key, start_key, scan_key, noise_key = jax.random.split(key, 4)
  shape = (observation.shape[0], size)

  def step(action: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
    number, key = inputs
    beta = _SCHEDULE.betas[number]
    noise = _denoiser.apply(
      policy, observation, action, jnp.full(shape[:1], number, jnp.float32)
    )
    mean = action - beta / jnp.sqrt(1.0 - _SCHEDULE.alpha_bars[number]) * noise
    fresh = jax.random.normal(key, shape) * jnp.sqrt(beta) * (number > 0)
    return jnp.clip(mean / jnp.sqrt(1.0 - beta) + fresh, -1.0, 1.0), None

  action, _ = jax.lax.scan(
    step,
    jax.random.normal(start_key, shape),
    (jnp.arange(_NUM_STEPS)[::-1], jax.random.split(scan_key, _NUM_STEPS)),
  )
  noise = _NOISE * jax.random.normal(noise_key, shape)
  return jnp.clip(action + noise, -1.0, 1.0), key


@jax.jit
def update(state: Any, batch: Any) -> dict[str, Any]:
  """One update of critics and policy on a batch, arrays [B, ...] by name."""
  observation, action = batch["observation"], batch["action"]
  next_observation = batch["next_observation"]
  next_action, key = act(
    *(state["policy"][0], state["key"], next_observation),
    size=action.shape[-1],
  )
  next_q = _q_values(state["target"], next_observation, next_action).min(axis=0)
  target = batch["reward"] + 0.99 * batch["discount"] * next_q

  def critic_loss(critics: Any) -> jax.Array:
    return jnp.mean(
      jnp.square(_q_values(critics, observation, action) - target)
    )

  critics = _descend(state["critics"], critic_loss)
  key, step_key, noise_key = jax.random.split(key, 3)
  steps = jax.random.randint(step_key, (_BATCH_SIZE,), 0, _NUM_STEPS)
  noise = jax.random.normal(noise_key, action.shape)
  noisy = diffusion.add_noise(_SCHEDULE, action, noise, steps)
  gradient = jax.grad(
    lambda action: jnp.sum(
      _q_values(critics[0], observation, action).mean(axis=0)
    )
  )(noisy)

  def policy_loss(policy: Any) -> jax.Array:
    noise = _denoiser.apply(
      policy, observation, noisy, steps.astype(jnp.float32)
    )
    return jnp.mean(jnp.square(noise + _SCALE * gradient))

  return {
    "policy": _descend(state["policy"], policy_loss),
    "critics": critics,
    "target": optax.incremental_update(critics[0], state["target"], 0.005),
    "key": key,
  }


def measure(num_steps: int) -> dict[str, float]:
  """Runs the loop.

  Args:
    num_steps: environment steps, with an update each, to measure.

  Returns:
    Environment steps per second, of acting alone and with updates.
  """
  compilation_cache.use()
  environment = environments.make(_TASK, 0)
  timestep = environment.reset()
  spec: Any = environment.action_spec()
  (size,) = spec.shape
  state = init(timestep.observation[None], jnp.zeros((1, size)))
  total = _FIRST_UPDATE + _WARM_UP_STEPS + num_steps
  seen = timestep.observation.shape
  replay = {
    "observation": np.zeros((total, *seen), np.float32),
    "action": np.zeros((total, size), np.float32),
    "reward": np.zeros(total, np.float32),
    "discount": np.zeros(total, np.float32),
    "next_observation": np.zeros((total, *seen), np.float32),
  }
  random = np.random.default_rng(0)
  times, key = [], jax.random.key(1)
  for row in range(total):
    times.append(time.perf_counter())
    if timestep.last():
      timestep = environment.reset()
    observation = timestep.observation
    actions, key = act(state["policy"][0], key, observation[None], size=size)
    action = np.asarray(actions[0])
    timestep = environment.step(action)
    values = (
      *(observation, action, timestep.reward, timestep.discount),
      timestep.observation,
    )
    for column, value in zip(replay.values(), values, strict=True):
      column[row] = value
    if row >= _FIRST_UPDATE:
      rows = random.integers(0, row + 1, _BATCH_SIZE)
      batch = {name: column[rows] for name, column in replay.items()}
      state = update(state, batch)
  jax.block_until_ready(state)
  times.append(time.perf_counter())

  def rate(begin: int, end: int) -> float:
    return (end - begin) / (times[end] - times[begin])

  return {
    "acting_steps_per_second": rate(_WARM_UP_STEPS, _FIRST_UPDATE),
    "learning_steps_per_second": rate(_FIRST_UPDATE + _WARM_UP_STEPS, total),
  }
