"""What an update and an action cost, by method and by kind of critic."""

import dataclasses
import functools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import acme_qsm
from acme_qsm import diffusion
from acme_qsm.methods import METHODS
from launchers.benchmarks import evaluations
from launchers.benchmarks import subject
from launchers.benchmarks import timing
from launchers.benchmarks.report import Row

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


def list_configs() -> dict[str, Any]:
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


def measure(effort: timing.Effort) -> Iterator[Row]:
  """Measures updates and acting of `list_configs`, and the parts of an update.

  Yields:
    A row for each: milliseconds of an update, how many of the standard's that
    are (medians over the rounds, each against the standard's of that round),
    how many it should be by the network evaluations that it takes; bytes that
    the compiled update needs at once, its arguments and results included; and
    milliseconds to act on one observation. Then a row of `DIVIDED`'s parts.
  """
  configs, divided = list_configs(), DIVIDED
  if effort.quick:
    configs, divided = {name: configs[name] for name in QUICK}, QUICK[-1]
  steps = {name: subject.Step(config) for name, config in configs.items()}
  updates = timing.measure(steps, **effort.turns())
  acts = timing.measure(
    {name: _make_act(config) for name, config in configs.items()},
    **effort.turns(),
  )
  for name, config in configs.items():
    ratios = [
      mine / standard
      for mine, standard in zip(updates[name], updates[STANDARD], strict=True)
    ]
    yield (
      "methods",
      {
        "method": name,
        "update_ms": timing.summarize(updates[name], 1e3).median,
        "updates_of_standard": timing.summarize(ratios).median,
        "by_evaluations": evaluations.count(config)
        / evaluations.count(configs[STANDARD]),
        "memory_mb": steps[name].memory_bytes / 1e6,
        "act_ms": timing.summarize(acts[name], 1e3).median,
      },
    )
  parts = measure_sdac_parts(configs[divided], effort)
  yield "parts_ms", {"parts of": divided, **parts}


def _make_act(config: Any) -> Any:
  policy, params = subject.make_policy(config)
  act = jax.jit(policy)
  observation = subject.make_transitions(1).observation
  return lambda: act(params, jax.random.key(1), observation)


def measure_sdac_parts(
  config: acme_qsm.SDACConfig, effort: timing.Effort
) -> Mapping[str, float]:
  """Milliseconds of what an update of SDAC is made of, each by itself."""
  networks = acme_qsm.make_networks(subject.SPEC, config)
  key = jax.random.key(0)
  critic_params = networks.init_critics(key)
  batch = subject.make_transitions(config.batch_size)
  schedule = diffusion.make_schedule(
    config.noise_schedule, config.num_denoising_steps
  )
  step = jax.random.randint(key, (config.batch_size,), 0, schedule.num_steps)
  draw, params = subject.make_policy(
    dataclasses.replace(config, num_action_candidates=1)
  )

  @jax.jit
  def draw_reverse_samples(key: jax.Array) -> jax.Array:
    bound = 1.0 if config.reverse_sampling == "truncated" else None
    clean_action, _ = diffusion.reverse_samples(
      key, schedule, batch.action, step, config.num_reverse_samples, bound=bound
    )
    return clean_action

  @jax.jit
  def ask_critics(params: Any, action: jax.Array) -> jax.Array:
    ask = jax.vmap(networks.q_values, (None, None, 1), 2)
    return ask(params, batch.observation, action).min(axis=0)

  @jax.jit
  @jax.grad
  def differentiate_critics(params: Any) -> jax.Array:
    q_value = networks.q_values(params, batch.observation, batch.action)
    return jnp.mean(jnp.square(q_value - batch.reward))

  draw_target_action = jax.jit(draw)
  clean_action = draw_reverse_samples(key)
  found = timing.measure(
    {
      "target action": lambda: draw_target_action(
        params, key, batch.next_observation
      ),
      "critics' gradient": lambda: differentiate_critics(critic_params),
      "reverse samples": lambda: draw_reverse_samples(key),
      "critics at them": lambda: ask_critics(critic_params, clean_action),
      "whole update": subject.Step(config),
    },
    **effort.turns(),
  )
  return {
    name: timing.summarize(seconds, 1e3).median
    for name, seconds in found.items()
  }
