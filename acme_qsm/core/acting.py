"""Acting: from the learner's parameters and observations to actions."""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import actions
from acme_qsm.core import normalization
from acme_qsm.networks import CriticNetworks


class PolicyParams(NamedTuple):
  """What a policy needs to act: see `make_policy`.

  Attributes:
    policy: the online policy's parameters; None where they are not needed, and
      so are the next two.
    target_policy: the target policy's.
    critics: the critics' parameters, to choose among candidate actions.
    steps: [] int32 learner steps behind these parameters.
    observation_statistics: what observations are normalised by; None for
      observations as they are.
    noise_scale: [] factor of the exploration noise; None for none.
  """

  policy: types.Params
  target_policy: types.Params
  critics: types.Params
  steps: jax.Array
  observation_statistics: normalization.Statistics | None = None
  noise_scale: jax.Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
  """A pure function that acts.

  Attributes:
    apply: (params, key, observation [B, ...]) -> (action [B, A] in [-1, 1],
      extras by name [B, ...]): what actors call; the key is consumed.
    evaluation: whether it is for evaluation.
    extras_spec: the extras by name, each with `shape`, without the batch axis,
      and `dtype`; {} where `apply` gives none.
  """

  apply: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, types.Extras]]
  evaluation: bool
  extras_spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __call__(
    self, params: Any, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    """The action [B, A] of `apply`."""
    return self.apply(params, key, observation)[0]


def make_policy(
  sampler: actions.Sampler,
  networks: CriticNetworks,
  config: ActorCriticConfig,
  evaluation: bool = False,
) -> Policy:
  """Makes the pure function that acts.

  While nothing has been learnt (`params.steps` is 0), actions are uniformly
  random, except in evaluation.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    config: candidates and exploration noise.
    evaluation: whether to act without exploration noise, and with the
      config's policy and candidates for evaluation.

  Returns:
    The policy; its params are those of `LearnerCore.policy_params`.
  """

  def sample(
    params: PolicyParams, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    if config.acts_by_target(evaluation):
      policy_params = params.target_policy
    else:
      policy_params = params.policy
    return actions.best_of(
      sampler,
      networks,
      policy_params,
      params.critics,
      key,
      observation,
      num_candidates=_num_candidates(config, evaluation),
    )

  def act(
    params: PolicyParams, key: jax.Array, observation: jax.Array
  ) -> tuple[jax.Array, types.Extras]:
    sample_key, noise_key, random_key = jax.random.split(key, 3)
    action = sample(
      params,
      sample_key,
      normalization.normalize(params.observation_statistics, observation),
    )
    if evaluation:
      return action, {}
    action = actions.add_exploration_noise(
      noise_key,
      action,
      actions.scale_noise(config.exploration_noise, params.noise_scale),
    )
    random_action = jax.random.uniform(
      random_key, action.shape, minval=-1.0, maxval=1.0
    )
    return jnp.where(params.steps == 0, random_action, action), {}

  return Policy(act, evaluation)


def policy_of(
  make_sampler: Callable[..., actions.Sampler],
) -> Callable[..., Policy]:
  """Makes a method's `make_policy` of what makes its sampler.

  Args:
    make_sampler: (networks, config, evaluation) -> what draws actions.

  Returns:
    (networks, config, evaluation=False) -> the policy by `make_policy`.
  """
  return functools.partial(_make_policy_of, make_sampler)


def _make_policy_of(
  make_sampler: Callable[..., actions.Sampler],
  networks: Any,
  config: Any,
  evaluation: bool = False,
) -> Policy:
  sampler = make_sampler(networks, config, evaluation)
  return make_policy(sampler, networks, config, evaluation)


def keep_needed(
  params: PolicyParams, config: ActorCriticConfig, evaluation: bool
) -> PolicyParams:
  """Drops the parameters that `make_policy`'s policy does not read.

  Args:
    params: all of them.
    config: the policy's.
    evaluation: whether the policy is for evaluation.

  Returns:
    The same with None in place of the others: less to send to an actor.
  """
  acts_by_target = config.acts_by_target(evaluation)
  return params._replace(
    policy=None if acts_by_target else params.policy,
    target_policy=params.target_policy if acts_by_target else None,
    critics=(
      params.critics if _num_candidates(config, evaluation) > 1 else None
    ),
    noise_scale=None if evaluation else params.noise_scale,
  )


def _num_candidates(config: ActorCriticConfig, evaluation: bool) -> int:
  if evaluation:
    return config.num_evaluation_candidates
  return config.num_action_candidates
