"""What an update and an action cost, by method and by kind of critic."""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax

import acme_qsm
from acme_qsm import diffusion
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import actions
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.methods import METHODS
from launchers.benchmarks import evaluations
from launchers.benchmarks import learner
from launchers.benchmarks import timing

_SIMBA: dict[str, Any] = {
  "critic_body": "simba",
  "critic_hidden_sizes": (128, 128),
}
_CATEGORICAL: dict[str, Any] = {"critic_head": "categorical"}

_WIDTHS: dict[str, Any] = {
  "policy_hidden_sizes": (256, 256),
  "critic_hidden_sizes": (256, 256),
}
_PRESETS = {
  "qsm": "langevin",
  "sdac": "reference",
  "idem": "reference",
  "dpmd": "reference",
  "qvpo": "official",
  "dipo": "official",
}
"""By method, the settings that others train it with."""

STANDARD = "qsm, T = 5"
"""What the others are compared with."""
DIVIDED = "sdac, T = 20, K = 500"
"""Whose update is measured in parts too."""
QUICK = (STANDARD, "sdac, as by default")
"""For a look; the parts are those of the last."""


def list_configs() -> dict[str, ActorCriticConfig]:
  """What is measured, by name; batches of 256 and widths of 256 for all."""
  qsm = functools.partial(acme_qsm.QSMConfig, num_denoising_steps=5)
  sdac = functools.partial(acme_qsm.SDACConfig, policy_update_period=1)
  return {
    STANDARD: qsm(),
    "qsm, T = 10": qsm(num_denoising_steps=10),
    "qsm, T = 5, layer_norm": qsm(critic_body="layer_norm"),
    "qsm, T = 5, simba (2 x 128)": qsm(**_SIMBA),
    "qsm, T = 5, categorical": qsm(**_CATEGORICAL),
    "qsm, T = 5, categorical simba": qsm(**_SIMBA, **_CATEGORICAL),
    "qsm, T = 5, quantile": qsm(critic_head="quantile"),
    "sdac, as by default": acme_qsm.SDACConfig(),
    "sdac, policy at each step": sdac(),
    "sdac, the same, K = 64": sdac(num_reverse_samples=64),
    "sdac, the same, N = 4": sdac(num_target_candidates=4),
    DIVIDED: sdac(num_denoising_steps=20, num_reverse_samples=500),
    "idem": acme_qsm.IDEMConfig(),
    "dpmd": acme_qsm.DPMDConfig(),
    "dpmd, K = 1": acme_qsm.DPMDConfig(
      num_policy_samples=1,
      weights="normalized_exponential",
      temperature_update="constant",
    ),
    "qvpo": acme_qsm.QVPOConfig(),
    "dipo": acme_qsm.DIPOConfig(),
    "gaussian": acme_qsm.GaussianConfig(),
    **{
      f"{name}, {preset}": dataclasses.replace(
        METHODS[name].preset(preset), **_WIDTHS
      )
      for name, preset in _PRESETS.items()
    },
  }


def measure(
  configs: Mapping[str, ActorCriticConfig], *, repeats: int, seconds: float
) -> list[dict[str, Any]]:
  """Measures updates and acting of all in turn.

  Args:
    configs: what is measured, `STANDARD` among them.
    repeats: how often each is measured.
    seconds: how long each time.

  Returns:
    A row for each: milliseconds of an update, how many of the standard's that
    are (medians over the rounds, each against the standard's of that round),
    how many it should be by the network evaluations that it takes; bytes that
    the compiled update needs at once, its arguments and results included; and
    milliseconds to act on one observation.
  """
  steps = {name: learner.Step(config) for name, config in configs.items()}
  updates = timing.measure(steps, repeats=repeats, seconds=seconds)
  acts = timing.measure(
    {name: _make_act(config) for name, config in configs.items()},
    repeats=repeats,
    seconds=seconds,
  )
  counts = {
    name: evaluations.count(config, learner.ACTION_SIZE)
    for name, config in configs.items()
  }
  rows = []
  for name in configs:
    shares = [
      mine / standard
      for mine, standard in zip(updates[name], updates[STANDARD], strict=True)
    ]
    rows.append(
      {
        "method": name,
        "update_ms": 1e3 * timing.summarize(updates[name]).median,
        "updates_of_standard": timing.summarize(shares).median,
        "by_evaluations": counts[name] / counts[STANDARD],
        "memory_mb": steps[name].memory_bytes / 1e6,
        "act_ms": 1e3 * timing.summarize(acts[name]).median,
      }
    )
  return rows


def _make_act(config: ActorCriticConfig) -> Callable[[], Any]:
  networks = learner.make_networks(config)
  core = acme_qsm.make_learner_core(networks, config)
  params = core.policy_params(jax.jit(core.init)(jax.random.key(0)))
  policy = jax.jit(acme_qsm.make_policy(networks, config))
  observation = learner.make_transitions(1).observation
  return lambda: policy(params, jax.random.key(1), observation)


def measure_sdac_parts(
  config: ActorCriticConfig, *, repeats: int, seconds: float
) -> dict[str, float]:
  """Measures what an update of soft diffusion actor-critic is made of.

  Args:
    config: what is measured.
    repeats: how often each part is measured, in turn.
    seconds: how long each time.

  Returns:
    Milliseconds of each part, computed by itself, and of the whole update.

  Raises:
    TypeError: if the configuration is of another method.
  """
  if not isinstance(config, acme_qsm.SDACConfig):
    raise TypeError(f"{type(config).__name__} is no configuration of SDAC.")
  networks = learner.make_networks(config)
  core = acme_qsm.make_learner_core(networks, config)
  state = jax.jit(core.init)(jax.random.key(0))
  batch = learner.make_transitions(config.batch_size)
  sampler = sampling.make_sampler(networks, config)
  schedule = sampling.make_schedule(networks, config)
  key = jax.random.key(0)
  step = jax.random.randint(key, (config.batch_size,), 0, schedule.num_steps)
  bound = 1.0 if config.reverse_sampling == "truncated" else None
  critic_loss = critics.make_critic_loss(networks, config)

  @jax.jit
  def draw_target_action(state: Any, key: jax.Array) -> jax.Array:
    action, _ = actions.draw_target_action(
      sampler,
      networks,
      config,
      state.policy_params,
      state.target_critic_params,
      key,
      batch.next_observation,
    )
    return action

  @jax.jit
  def draw_reverse_samples(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return diffusion.reverse_samples(
      key, schedule, batch.action, step, config.num_reverse_samples, bound=bound
    )

  @jax.jit
  def ask_critics(state: Any, action: jax.Array) -> jax.Array:
    return critics.lowest_q_value(
      networks, state.critic_params, batch.observation, action
    )

  @jax.jit
  def differentiate_critics(state: Any, action: jax.Array) -> Any:
    return jax.grad(critic_loss, has_aux=True)(
      state.critic_params, state.target_critic_params, batch, action
    )

  clean_action, _ = draw_reverse_samples(key)
  found = timing.measure(
    {
      "target action": lambda: draw_target_action(state, key),
      "critics' gradient": lambda: differentiate_critics(state, batch.action),
      "reverse samples": lambda: draw_reverse_samples(key),
      "critics at them": lambda: ask_critics(state, clean_action),
      "whole update": learner.Step(config),
    },
    repeats=repeats,
    seconds=seconds,
  )
  return {
    name: 1e3 * timing.summarize(times).median for name, times in found.items()
  }
