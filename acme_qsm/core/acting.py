"""Acting: from the learner's parameters and observations to actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import TypeAlias

from acme_qsm import types
from acme_qsm.core import normalization
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

Sampler: TypeAlias = Callable[
  [types.Params, "jax.Array", "jax.Array"], "jax.Array"
]
"""(policy's parameters, key, observation [B, ...]) -> action [B, A] in
[-1, 1]."""


class Networks(Protocol):
  """What the shared parts ask of a method's networks.

  Attributes:
    init_policy: key -> the policy's parameters.
    init_critics: key -> parameters of all N critics.
    q_values: (params, observation [B, ...], action [B, A]) -> Q-values
      [N, B].
    action_size: A.
    critic_outputs: as q_values, but what the critics' heads are made of [N, B,
      H]; None where they predict Q itself.
    observation_shape: an observation's shape; None if it is not known.
  """

  @property
  def init_policy(self) -> Callable[[jax.Array], types.Params]: ...  # noqa: D102

  @property
  def init_critics(self) -> Callable[[jax.Array], types.Params]: ...  # noqa: D102

  @property
  def q_values(  # noqa: D102
    self,
  ) -> Callable[[types.Params, jax.Array, jax.Array], jax.Array]: ...

  @property
  def action_size(self) -> int: ...  # noqa: D102

  @property
  def critic_outputs(  # noqa: D102
    self,
  ) -> Callable[[types.Params, jax.Array, jax.Array], jax.Array] | None: ...

  @property
  def observation_shape(self) -> tuple[int, ...] | None: ...  # noqa: D102


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


def best_of(
  sampler: Sampler,
  networks: Networks,
  policy_params: types.Params,
  critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  *,
  num_candidates: int,
) -> jax.Array:
  """Draws candidate actions and takes the best.

  The best is what the lowest of the critics values most, as in the
  implementation of Ma et al. (2025); with one candidate, no critic is asked.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    policy_params: the policy's parameters.
    critic_params: the critics' parameters; not read with one candidate.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    num_candidates: candidates per observation, at least 1.

  Returns:
    Actions [B, A] in [-1, 1].
  """
  candidates = draw_several(
    sampler, policy_params, key, observation, num_candidates
  )
  if num_candidates == 1:
    return candidates[:, 0]
  q_value = lowest_q_value(networks, critic_params, observation, candidates)
  best = jnp.argmax(q_value, axis=1)
  return candidates[jnp.arange(observation.shape[0]), best]


def draw_several(
  sampler: Sampler,
  policy_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  num_samples: int,
) -> jax.Array:
  """Draws several actions of the policy for each observation.

  Args:
    sampler: draws an action for each observation.
    policy_params: the policy's parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    num_samples: K, at least 1.

  Returns:
    Actions [B, K, A] in [-1, 1].
  """
  # Those of an observation stand next to each other.
  repeated = jnp.repeat(observation, num_samples, axis=0)
  action = sampler(policy_params, key, repeated)
  return action.reshape(observation.shape[0], num_samples, -1)


def lowest_q_value(
  networks: Networks,
  critic_params: types.Params,
  observation: jax.Array,
  action: jax.Array,
) -> jax.Array:
  """What the lowest of the critics says of several actions per observation.

  Args:
    networks: the critics.
    critic_params: their parameters.
    observation: [B, ...] observations.
    action: [B, K, A] actions.

  Returns:
    min_i Q_i(s, a_k) [B, K].
  """
  # Observations have no axis of their own for the K actions: what a critic
  # makes of them alone is computed once.
  q_values = jax.vmap(networks.q_values, in_axes=(None, None, 1), out_axes=2)(
    critic_params, observation, action
  )
  # Not their minimum, whose gradient asks which of them is equal to it: where
  # XLA computes them twice, as it does with JAX 0.12, none need be.
  numbers = jnp.arange(q_values.shape[0])[:, None, None]
  is_lowest = numbers == jnp.argmin(q_values, axis=0)
  return jnp.sum(jnp.where(is_lowest, q_values, 0.0), axis=0)


def add_exploration_noise(
  key: jax.Array, action: jax.Array, standard_deviation: float | jax.Array
) -> jax.Array:
  """Adds Gaussian noise to actions and clips them to [-1, 1]."""
  noise = standard_deviation * jax.random.normal(key, action.shape)
  return jnp.clip(action + noise, -1.0, 1.0)


def scale_noise(
  standard_deviation: float, noise_scale: jax.Array | None
) -> float | jax.Array:
  """Scales an exploration noise by what the method says; None leaves it."""
  if noise_scale is None:
    return standard_deviation
  return noise_scale * standard_deviation


def make_policy(
  sampler: Sampler,
  networks: Networks,
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
    return best_of(
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
    action = add_exploration_noise(
      noise_key,
      action,
      scale_noise(config.exploration_noise, params.noise_scale),
    )
    random_action = jax.random.uniform(
      random_key, action.shape, minval=-1.0, maxval=1.0
    )
    return jnp.where(params.steps == 0, random_action, action), {}

  return Policy(act, evaluation)


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
