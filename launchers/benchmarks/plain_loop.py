"""Q-score matching's whole loop as its official implementation describes it.

  python -m launchers.benchmarks.plain_loop <environment steps>

prints environment steps per second, with an update each, as JSON. Rebuilt from
that description, for a comparison: networks of 2 x 512 over concatenated
inputs, T = 5, one-step returns, a replay of arrays in numpy, and an action, an
environment step, a batch and an update in turn.
"""

import functools
import json
import sys
import time
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


def _denoiser(
  observation: jax.Array, action: jax.Array, step: jax.Array, size: int
) -> jax.Array:
  frequencies = hk.get_parameter(
    "frequencies", [32], init=hk.initializers.RandomNormal(0.2)
  )
  angles = 2.0 * jnp.pi * step[:, None] * frequencies
  features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  condition = hk.nets.MLP([128, 128], activation=jax.nn.mish)(features)
  inputs = jnp.concatenate([action, observation, condition], axis=-1)
  return hk.nets.MLP([*_WIDTHS, size], activation=jax.nn.mish)(inputs)


def _critic(observation: jax.Array, action: jax.Array) -> jax.Array:
  inputs = jnp.concatenate([observation, action], axis=-1)
  return hk.nets.MLP([*_WIDTHS, 1])(inputs)[:, 0]


class Agent:
  """Its networks, its update and its policy."""

  def __init__(self, observation_size: int, action_size: int):
    self._size = action_size
    denoiser = hk.without_apply_rng(
      hk.transform(functools.partial(_denoiser, size=action_size))
    )
    critic = hk.without_apply_rng(hk.transform(_critic))
    self._denoise = denoiser.apply
    self._criticize = jax.vmap(critic.apply, in_axes=(0, None, None))
    self._schedule = diffusion.make_schedule("vp", _NUM_STEPS)
    self._optimizer = optax.adam(3e-4)
    observation = jnp.zeros((1, observation_size))
    action = jnp.zeros((1, action_size))
    key = jax.random.key(0)
    policy = denoiser.init(key, observation, action, jnp.zeros((1,)))
    critics = jax.vmap(lambda key: critic.init(key, observation, action))(
      jax.random.split(key, 2)
    )
    self.state: Any = {
      "policy": policy,
      "critics": critics,
      "target": critics,
      "policy_optimizer": self._optimizer.init(policy),
      "critic_optimizer": self._optimizer.init(critics),
      "key": key,
    }
    self.update = jax.jit(self._update)
    self.act = jax.jit(self._act)

  def _act(
    self, policy: Any, key: jax.Array, observation: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    key, start_key, scan_key, noise_key = jax.random.split(key, 4)
    shape = (observation.shape[0], self._size)
    betas, alpha_bars = self._schedule.betas, self._schedule.alpha_bars

    def step(action: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
      number, key = inputs
      beta = betas[number]
      noise = self._denoise(
        policy, observation, action, jnp.full(shape[:1], number, jnp.float32)
      )
      mean = action - beta / jnp.sqrt(1.0 - alpha_bars[number]) * noise
      fresh = jax.random.normal(key, shape) * jnp.sqrt(beta) * (number > 0)
      return jnp.clip(mean / jnp.sqrt(1.0 - beta) + fresh, -1.0, 1.0), None

    action, _ = jax.lax.scan(
      step,
      jax.random.normal(start_key, shape),
      (
        jnp.arange(_NUM_STEPS)[::-1],
        jax.random.split(scan_key, _NUM_STEPS),
      ),
    )
    noise = _NOISE * jax.random.normal(noise_key, shape)
    return jnp.clip(action + noise, -1.0, 1.0), key

  def _update(self, state: Any, batch: Any) -> Any:
    next_action, key = self._act(
      state["policy"], state["key"], batch["next_observation"]
    )
    next_q = self._criticize(
      state["target"], batch["next_observation"], next_action
    )
    target = batch["reward"] + 0.99 * batch["discount"] * next_q.min(axis=0)

    def critic_loss(critics: Any) -> jax.Array:
      q = self._criticize(critics, batch["observation"], batch["action"])
      return jnp.mean(jnp.square(q - target))

    changes, critic_optimizer = self._optimizer.update(
      jax.grad(critic_loss)(state["critics"]), state["critic_optimizer"]
    )
    critics = optax.apply_updates(state["critics"], changes)
    key, step_key, noise_key = jax.random.split(key, 3)
    steps = jax.random.randint(step_key, (_BATCH_SIZE,), 0, _NUM_STEPS)
    noisy = diffusion.add_noise(
      self._schedule,
      batch["action"],
      jax.random.normal(noise_key, batch["action"].shape),
      steps,
    )
    gradient = jax.grad(
      lambda action: jnp.sum(
        self._criticize(critics, batch["observation"], action).mean(axis=0)
      )
    )(noisy)

    def policy_loss(policy: Any) -> jax.Array:
      noise = self._denoise(
        policy, batch["observation"], noisy, steps.astype(jnp.float32)
      )
      return jnp.mean(jnp.square(noise + _SCALE * gradient))

    changes, policy_optimizer = self._optimizer.update(
      jax.grad(policy_loss)(state["policy"]), state["policy_optimizer"]
    )
    return {
      "policy": optax.apply_updates(state["policy"], changes),
      "critics": critics,
      "target": optax.incremental_update(critics, state["target"], 0.005),
      "policy_optimizer": policy_optimizer,
      "critic_optimizer": critic_optimizer,
      "key": key,
    }


def measure(num_steps: int) -> dict[str, float]:
  """Runs the loop.

  Args:
    num_steps: environment steps, with an update each, to measure.

  Returns:
    Environment steps per second, of acting alone and with updates.
  """
  environment = environments.make(_TASK, 0)
  timestep = environment.reset()
  spec: Any = environment.action_spec()
  (action_size,) = spec.shape
  agent = Agent(timestep.observation.size, action_size)
  total = _FIRST_UPDATE + _WARM_UP_STEPS + num_steps
  columns = {
    "observation": timestep.observation.shape,
    "action": (action_size,),
    "reward": (),
    "discount": (),
    "next_observation": timestep.observation.shape,
  }
  replay = {
    name: np.zeros((total, *shape), np.float32)
    for name, shape in columns.items()
  }
  random = np.random.RandomState(0)
  key = jax.random.key(1)
  times = []
  for count in range(total):
    times.append(time.perf_counter())
    observation = timestep.observation
    action, key = agent.act(agent.state["policy"], key, observation[None])
    action = np.asarray(action)[0]
    timestep = environment.step(action)
    step = (observation, action, timestep.reward, timestep.discount)
    for name, value in zip(columns, (*step, timestep.observation), strict=True):
      replay[name][count] = value
    if timestep.last():
      timestep = environment.reset()
    if count >= _FIRST_UPDATE:
      rows = random.randint(count + 1, size=_BATCH_SIZE)
      batch = {name: values[rows] for name, values in replay.items()}
      agent.state = agent.update(agent.state, batch)
  jax.block_until_ready(agent.state)

  def rate(begin: int, end: int) -> float:
    return (end - begin) / (times[end] - times[begin])

  return {
    "acting_steps_per_second": rate(_WARM_UP_STEPS, _FIRST_UPDATE),
    "learning_steps_per_second": rate(
      _FIRST_UPDATE + _WARM_UP_STEPS, total - 1
    ),
  }


if __name__ == "__main__":
  compilation_cache.use()
  print(json.dumps(measure(int(sys.argv[1]))))
