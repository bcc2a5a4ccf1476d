"""All methods by name, and what finds a configuration's."""

from typing import Any

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import acting
from acme_qsm.core import atoms
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.methods.dipo import DIPO
from acme_qsm.methods.dpmd import DPMD
from acme_qsm.methods.gaussian import GAUSSIAN
from acme_qsm.methods.idem import IDEM
from acme_qsm.methods.qsm import QSM
from acme_qsm.methods.qvpo import QVPO
from acme_qsm.methods.sdac import SDAC

METHODS: dict[str, Method] = {
  "qsm": QSM,
  "sdac": SDAC,
  "idem": IDEM,
  "dpmd": DPMD,
  "qvpo": QVPO,
  "dipo": DIPO,
  "gaussian": GAUSSIAN,
}
"""Methods by name. Add your own under a name of its own."""


def find(config: ActorCriticConfig) -> tuple[str, Method]:
  """Finds the method that a configuration is for.

  Args:
    config: the configuration.

  Returns:
    Its method's name in `METHODS`, and the method.

  Raises:
    ValueError: if no method has configurations of this type.
  """
  for name, method in METHODS.items():
    if type(config) is method.config:
      return name, method
  known = ", ".join(method.config.__name__ for method in METHODS.values())
  raise ValueError(
    f"No method is configured by {type(config).__name__}, but by {known}; one "
    "of your own belongs in acme_qsm.methods.METHODS."
  )


def make_networks(
  environment_spec: types.EnvironmentSpecLike,
  config: ActorCriticConfig,
  **own_networks: Any,
) -> Any:
  """Makes the networks of a configuration's method for an environment.

  Args:
    environment_spec: the environment's spec: `actions` bounded to [-1, 1], of
      shape [A].
    config: the configuration of any method.
    **own_networks: networks of your own; see the method's `make_networks`, such
      as `acme_qsm.networks.make_networks` for `denoiser` and `critic`.

  Returns:
    The networks.

  Raises:
    ValueError: if the spec is not one that this library can act in, if
      categorical critics cannot hold the returns of the rewards that it states
      (`atoms.require_hold_returns`), or if a network's output does not have the
      shape that it must.
  """
  _, method = find(config)
  atoms.require_hold_returns(environment_spec, config)
  return method.make_networks(environment_spec, config, **own_networks)


def make_learner_core(networks: Any, config: ActorCriticConfig) -> LearnerCore:
  """Makes the learner of a configuration's method.

  Args:
    networks: from `make_networks` with the same configuration, or your own.
    config: the configuration of any method.

  Returns:
    The learner's pure functions.

  Raises:
    ValueError: if the networks were made for another configuration.
  """
  _, method = find(config)
  return method.make_learner_core(networks, config)


def make_policy(
  networks: Any, config: ActorCriticConfig, evaluation: bool = False
) -> acting.Policy:
  """Makes the pure function that acts, by a configuration's method.

  While nothing has been learnt (`params.steps` is 0), actions are uniformly
  random, except in evaluation.

  Args:
    networks: from `make_networks` with the same configuration, or your own.
    config: the configuration of any method.
    evaluation: whether to act without exploration noise, and with the
      config's policy, temperature and candidates for evaluation.

  Returns:
    policy(params, key, observation [B, ...]) -> action [B, A] in [-1, 1]; the
    key is consumed, and params are those of `LearnerCore.policy_params`. Its
    `apply` returns extras beside the action.

  Raises:
    ValueError: if the networks were made for another configuration.
  """
  _, method = find(config)
  return method.make_policy(networks, config, evaluation)
