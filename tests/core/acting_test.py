"""Acting, with denoisers and critics whose actions are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import networks as networks_lib
from acme_qsm.core import PolicyParams

PARAMS = PolicyParams(
  policy=None, target_policy=None, critics=None, steps=jnp.asarray(1)
)


def make_fake_networks(denoise, q_values=None, action_size=2):
  def no_critic(*args):
    raise AssertionError("No critic should be asked.")

  return networks_lib.DiffusionNetworks(
    init_denoiser=lambda key: None,
    denoise=lambda params, o, a, t: denoise(o, a, t),
    init_critics=lambda key: None,
    q_values=((lambda params, o, a: q_values(o, a)) if q_values else no_critic),
    action_size=action_size,
  )


def make_goal_denoiser(config):
  """A denoiser that brings any a_t to the observation in one step.

  It solves (a_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t) = o for eps.
  """
  schedule = diffusion.make_schedule(
    config.noise_schedule, config.num_denoising_steps
  )

  def denoise(observation, action, step):
    beta, alpha, alpha_bar = (x[step] for x in schedule)
    change = action - jnp.sqrt(alpha) * observation
    return change * jnp.sqrt(1 - alpha_bar) / beta

  return denoise


def goals(*shape):
  return jax.random.uniform(jax.random.key(100), shape, minval=-0.9, maxval=0.9)


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("num_candidates", [1, 3])
def test_actions_are_bounded(config, evaluation, num_candidates):
  config = dataclasses.replace(
    config,
    exploration_noise=5.0,
    num_action_candidates=num_candidates,
    num_evaluation_candidates=num_candidates,
  )
  networks = make_fake_networks(lambda o, a, t: -100.0 * a, lambda o, a: a.T)
  policy = acme_qsm.make_policy(networks, config, evaluation=evaluation)
  actions = policy(PARAMS, jax.random.key(0), jnp.zeros((64, 3)))
  assert actions.shape == (64, 2)
  assert actions.dtype == jnp.float32
  assert jnp.abs(actions).max() == 1.0


def test_real_networks_compile(networks, config):
  params = PolicyParams(
    policy=networks.init_denoiser(jax.random.key(0)),
    target_policy=networks.init_denoiser(jax.random.key(3)),
    critics=networks.init_critics(jax.random.key(1)),
    steps=jnp.asarray(1),
  )
  config = dataclasses.replace(config, num_action_candidates=4)
  policy = acme_qsm.make_policy(networks, config)
  actions = jax.jit(policy)(params, jax.random.key(2), goals(5, 3))
  assert actions.shape == (5, 2)
  assert jnp.abs(actions).max() <= 1.0
  assert jnp.isfinite(actions).all()


@pytest.mark.parametrize(
  ("fields", "sample"),
  [
    ({}, diffusion.sample),
    ({"sampler": "posterior"}, diffusion.sample_posterior),
    (
      {"sampler": "posterior", "posterior_variance": "fixed_large"},
      functools.partial(diffusion.sample_posterior, variance="fixed_large"),
    ),
  ],
)
def test_evaluation_is_the_reverse_process_alone(config, fields, sample):
  config = dataclasses.replace(config, **fields)

  def denoise(o, a, t):
    return 0.5 * (a - 0.2)

  policy = acme_qsm.make_policy(
    make_fake_networks(denoise), config, evaluation=True
  )
  size = 20_000
  key = jax.random.key(1)
  actions = policy(PARAMS, key, jnp.zeros((size, 3)))
  np.testing.assert_array_equal(
    actions, policy(PARAMS, key, jnp.zeros((size, 3)))
  )
  direct = sample(
    jax.random.key(2),
    lambda a, t: denoise(None, a, t),
    diffusion.make_schedule("vp", 3),
    (size, 2),
  )
  # Two samples of one distribution on [-1, 1]: standard deviations are at most
  # 1, so five standard errors of the moments' differences are below this.
  tolerance = 5 * np.sqrt(2 / size)
  for power in (1, 2, 3):
    np.testing.assert_allclose(
      jnp.mean(actions**power, axis=0),
      jnp.mean(direct**power, axis=0),
      atol=tolerance,
    )


def test_exploration_noise_only_in_training(config):
  config = dataclasses.replace(config, exploration_noise=0.1)
  networks = make_fake_networks(make_goal_denoiser(config))
  observation = jnp.zeros((20_000, 2)) + 0.2
  evaluated, explored = (
    acme_qsm.make_policy(networks, config, evaluation=evaluation)(
      PARAMS, jax.random.key(0), observation
    )
    for evaluation in (True, False)
  )
  np.testing.assert_allclose(evaluated, observation, atol=1e-5)
  # Five standard errors; the clip is eight standard deviations away.
  noise = explored - observation
  np.testing.assert_allclose(jnp.mean(noise), 0.0, atol=0.5 / np.sqrt(40_000))
  np.testing.assert_allclose(
    jnp.std(noise), 0.1, atol=0.5 / np.sqrt(2 * 40_000)
  )


@pytest.mark.parametrize(
  ("evaluation", "evaluate_target_denoiser", "expected"),
  [(False, True, -0.5), (True, True, 0.6), (True, False, -0.5)],
)
def test_evaluation_may_sample_from_the_target_denoiser(
  config, evaluation, evaluate_target_denoiser, expected
):
  config = dataclasses.replace(
    config,
    exploration_noise=0.0,
    evaluate_target_denoiser=evaluate_target_denoiser,
  )
  go_to = make_goal_denoiser(config)
  networks = dataclasses.replace(
    make_fake_networks(lambda o, a, t: a),
    denoise=lambda params, o, a, t: go_to(params, a, t),
  )
  params = PARAMS._replace(policy=-0.5, target_policy=0.6)
  policy = acme_qsm.make_policy(networks, config, evaluation)
  actions = policy(params, jax.random.key(0), jnp.zeros((8, 3)))
  np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_without_noise_training_acts_as_evaluation(config):
  config = dataclasses.replace(config, exploration_noise=0.0)
  networks = make_fake_networks(lambda o, a, t: 0.3 * a)
  evaluated, explored = (
    acme_qsm.make_policy(networks, config, evaluation=evaluation)(
      PARAMS, jax.random.key(0), jnp.zeros((8, 3))
    )
    for evaluation in (True, False)
  )
  np.testing.assert_array_equal(evaluated, explored)


def test_before_learning_actions_are_uniform(config):
  networks = make_fake_networks(make_goal_denoiser(config))
  size = 20_000
  observation = jnp.full((size, 2), 0.5)

  def act(evaluation):
    policy = acme_qsm.make_policy(networks, config, evaluation=evaluation)
    params = PARAMS._replace(steps=jnp.asarray(0))
    return jax.jit(policy)(params, jax.random.key(0), observation)

  # The moments of the uniform distribution on [-1, 1], whose powers have
  # standard deviations below 1: five standard errors.
  actions = act(evaluation=False)
  tolerance = 5 / np.sqrt(2 * size)
  for power, moment in ((1, 0), (2, 1 / 3), (3, 0), (4, 1 / 5)):
    np.testing.assert_allclose(jnp.mean(actions**power), moment, atol=tolerance)
  np.testing.assert_allclose(act(evaluation=True), observation, atol=1e-5)


def test_temperatures_are_the_modes_own(config):
  networks = make_fake_networks(lambda o, a, t: 0.9 * a)

  def act(evaluation, **changes):
    policy = acme_qsm.make_policy(
      networks,
      dataclasses.replace(config, exploration_noise=0.0, **changes),
      evaluation=evaluation,
    )
    return policy(PARAMS, jax.random.key(0), jnp.zeros((8, 3)))

  cold = act(True, evaluation_temperature=0.0, sampling_temperature=1.0)
  warm = act(True, evaluation_temperature=1.0, sampling_temperature=0.0)
  assert jnp.abs(cold - warm).max() > 0.1
  np.testing.assert_array_equal(
    cold, act(False, evaluation_temperature=1.0, sampling_temperature=0.0)
  )
  np.testing.assert_array_equal(
    warm, act(False, evaluation_temperature=0.0, sampling_temperature=1.0)
  )


@pytest.mark.parametrize("num_candidates", [1, 3])
def test_each_observation_gets_its_own_action(config, num_candidates):
  config = dataclasses.replace(config, num_evaluation_candidates=num_candidates)
  networks = make_fake_networks(
    make_goal_denoiser(config), lambda o, a: jnp.zeros((2, a.shape[0]))
  )
  policy = acme_qsm.make_policy(networks, config, evaluation=True)
  observation = goals(6, 2)
  actions = policy(PARAMS, jax.random.key(0), observation)
  np.testing.assert_allclose(actions, observation, atol=1e-5)


@pytest.mark.parametrize("evaluation", [False, True])
def test_the_lower_critics_favourite_is_taken(config, evaluation):
  # The critics' minimum peaks at the observation, their mean at the lower
  # bound: -3 (a - o) against a - o.
  seen = []

  def q_values(observation, action):
    difference = action[:, 0] - observation[:, 0]
    jax.debug.callback(
      lambda o, a: seen.append((np.array(o), np.array(a))),
      observation[:, 0],
      action[:, 0],
    )
    return jnp.stack([difference, -3.0 * difference])

  config = dataclasses.replace(
    config,
    exploration_noise=0.0,
    num_action_candidates=1 if evaluation else 8,
    num_evaluation_candidates=8 if evaluation else 1,
  )
  networks = make_fake_networks(lambda o, a, t: 0.9 * a, q_values, 1)
  policy = acme_qsm.make_policy(networks, config, evaluation=evaluation)
  observation = goals(5, 1)
  actions = policy(PARAMS, jax.random.key(0), observation)
  assert actions.shape == (5, 1)
  jax.effects_barrier()
  asked_observations, candidates = np.concatenate(seen, axis=1)
  assert len(set(candidates.tolist())) > 20
  for i in range(5):
    goal = float(observation[i, 0])
    own = candidates[asked_observations == observation[i, 0]]
    assert own.shape == (8,)
    values = [min(a - goal, -3 * (a - goal)) for a in own.tolist()]
    assert float(actions[i, 0]) == own[int(np.argmax(values))]


def test_keys_and_examples_are_independent(config):
  networks = make_fake_networks(lambda o, a, t: 0.9 * a)
  policy = acme_qsm.make_policy(networks, config)
  observation = jnp.zeros((2000, 3))
  first, second = (
    np.asarray(policy(PARAMS, jax.random.key(seed), observation))
    for seed in (0, 1)
  )
  # Correlations of independent draws: five standard errors.
  tolerance = 5 / np.sqrt(2000)
  columns = np.concatenate([first, second], axis=1).T
  np.testing.assert_allclose(np.corrcoef(columns), np.eye(4), atol=tolerance)
  shifted = np.corrcoef(first[1:, 0], first[:-1, 0])[0, 1]
  assert abs(shifted) < tolerance
