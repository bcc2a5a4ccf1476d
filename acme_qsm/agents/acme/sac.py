"""What Acme's own agents are made of: from our configurations to Acme's."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from acme import specs
from acme.agents.jax import sac
from acme.agents.jax import td3

from acme_qsm.agents.acme_agents import AcmeConfig
from acme_qsm.agents.acme_agents import AcmeSACConfig
from acme_qsm.agents.acme_agents import AcmeTD3Config
from acme_qsm.agents.acme_builder import AcmeBuilder


def _make_sac_policy(
  config: AcmeConfig,
  networks: sac.SACNetworks,
  environment_spec: specs.EnvironmentSpec,
  evaluation: bool,
) -> Any:
  del config, environment_spec
  return sac.apply_policy_and_sample(networks, eval_mode=evaluation)


def _make_td3_policy(
  config: AcmeTD3Config,
  networks: td3.TD3Networks,
  environment_spec: specs.EnvironmentSpec,
  evaluation: bool,
) -> Any:
  return td3.get_default_behavior_policy(
    networks, environment_spec.actions, 0.0 if evaluation else config.sigma
  )


class _Agent(NamedTuple):
  """An agent's parts in Acme, and what makes its policies."""

  builder: Any
  config: Any
  make_networks: Callable[..., Any]
  make_policy: Callable[..., Any]


_AGENTS = {
  AcmeSACConfig: _Agent(
    sac.SACBuilder, sac.SACConfig, sac.make_networks, _make_sac_policy
  ),
  AcmeTD3Config: _Agent(
    td3.TD3Builder, td3.TD3Config, td3.make_networks, _make_td3_policy
  ),
}


def make_builder(config: AcmeConfig) -> AcmeBuilder:
  """Makes an agent's builder.

  Args:
    config: the agent's configuration.

  Returns:
    The builder of dm-acme 0.4.0, in the adapter.
  """
  agent = _AGENTS[type(config)]
  fields = {
    field.name: getattr(config, field.name)
    for field in dataclasses.fields(config)
    # Of the networks, not of the builder.
    if field.name != "hidden_layer_sizes"
  }
  return AcmeBuilder(
    functools.partial(agent.builder, agent.config(**fields)),
    functools.partial(agent.make_policy, config),
  )


def make_networks(
  environment_spec: specs.EnvironmentSpec, config: AcmeConfig
) -> Any:
  """Makes an agent's networks.

  Args:
    environment_spec: the environment's spec.
    config: the agent's configuration.

  Returns:
    Acme's networks, of its own architecture.
  """
  return _AGENTS[type(config)].make_networks(
    environment_spec, config.hidden_layer_sizes
  )
