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


def act(networks, config, observation, evaluation=False, seed=0, **params):
  """Actions of the compiled policy."""
  policy = acme_qsm.make_policy(networks, config, evaluation)
  return np.asarray(
    jax.jit(policy)(
      PARAMS._replace(**params), jax.random.key(seed), observation
    )
  )


@pytest.mark.parametrize(
  ("evaluation", "num_candidates"), [(False, 3), (True, 1), (True, 3)]
)
def test_actions_are_bounded(config, evaluation, num_candidates):
  config = dataclasses.replace(
    config,
    exploration_noise=5.0,
    num_action_candidates=num_candidates,
    num_evaluation_candidates=num_candidates,
  )
  networks = make_fake_networks(lambda o, a, t: -100.0 * a, lambda o, a: a.T)
  actions = act(networks, config, jnp.zeros((64, 3)), evaluation)
  assert actions.shape == (64, 2)
  assert actions.dtype == np.float32
  assert np.abs(actions).max() == 1.0


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
  size = 20_000
  actions = act(
    make_fake_networks(lambda o, a, t: 0.5 * (a - 0.2)),
    *(config, jnp.zeros((size, 3)), True),
  )
  direct = jax.jit(
    lambda key: sample(
      key,
      lambda a, t: 0.5 * (a - 0.2),
      diffusion.make_schedule("vp", 3),
      (size, 2),
    )
  )(jax.random.key(2))
  # Two samples of one distribution on [-1, 1]: standard deviations are at most
  # 1, so five standard errors of the moments' differences are below this.
  tolerance = 5 * np.sqrt(2 / size)
  for power in (1, 2, 3):
    np.testing.assert_allclose(
      np.mean(actions**power, axis=0),
      np.mean(np.asarray(direct) ** power, axis=0),
      atol=tolerance,
    )


def test_exploration_noise_only_in_training(config):
  config = dataclasses.replace(config, exploration_noise=0.1)
  networks = make_fake_networks(make_goal_denoiser(config))
  observation = np.full((20_000, 2), 0.2, np.float32)
  evaluated = act(networks, config, observation, evaluation=True)
  np.testing.assert_allclose(evaluated, observation, atol=1e-5)
  # Five standard errors; the clip is eight standard deviations away.
  noise = act(networks, config, observation) - observation
  assert np.mean(noise) == pytest.approx(0.0, abs=0.5 / np.sqrt(40_000))
  assert np.std(noise) == pytest.approx(0.1, abs=0.5 / np.sqrt(2 * 40_000))


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
  observation, params = (
    jnp.zeros((8, 3)),
    {"policy": -0.5, "target_policy": 0.6},
  )
  actions = act(networks, config, observation, evaluation, **params)
  np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_before_learning_actions_are_uniform(config):
  networks = make_fake_networks(make_goal_denoiser(config))
  observation, size = np.full((20_000, 2), 0.5, np.float32), 20_000
  before = {"steps": jnp.asarray(0)}
  actions = act(networks, config, observation, **before)
  # The moments of the uniform distribution on [-1, 1], whose powers have
  # standard deviations below 1: five standard errors.
  for power, moment in ((1, 0), (2, 1 / 3), (3, 0), (4, 1 / 5)):
    assert np.mean(actions**power) == pytest.approx(
      moment, abs=5 / np.sqrt(2 * size)
    )
  evaluated = act(networks, config, observation, evaluation=True, **before)
  np.testing.assert_allclose(evaluated, observation, atol=1e-5)


def test_temperatures_are_the_modes_own(config):
  networks = make_fake_networks(lambda o, a, t: 0.9 * a)

  def act_at(evaluation_temperature, sampling_temperature, evaluation):
    changed = dataclasses.replace(
      config,
      exploration_noise=0.0,
      evaluation_temperature=evaluation_temperature,
      sampling_temperature=sampling_temperature,
    )
    return act(networks, changed, jnp.zeros((8, 3)), evaluation)

  cold, warm = act_at(0.0, 1.0, True), act_at(1.0, 0.0, True)
  assert np.abs(cold - warm).max() > 0.1
  # Without noise on actions, training acts as evaluation.
  np.testing.assert_array_equal(cold, act_at(1.0, 0.0, False))
  np.testing.assert_array_equal(warm, act_at(0.0, 1.0, False))


@pytest.mark.parametrize("num_candidates", [1, 3])
def test_each_observation_gets_its_own_action(config, num_candidates):
  config = dataclasses.replace(config, num_evaluation_candidates=num_candidates)
  networks = make_fake_networks(
    make_goal_denoiser(config), lambda o, a: jnp.zeros((2, a.shape[0]))
  )
  observation = goals(6, 2)
  actions = act(networks, config, observation, evaluation=True)
  np.testing.assert_allclose(actions, observation, atol=1e-5)


@pytest.mark.parametrize("evaluation", [False, True])
def test_the_lower_critics_favourite_is_taken(config, evaluation):
  # The critics' minimum peaks at the observation, their mean at the lower
  # bound: -3 (a - o) against a - o.
  seen = []

  def q_values(observation, action):
    difference = action[:, 0] - observation[:, 0]
    jax.debug.callback(
      lambda *given: seen.append(np.array(given)),
      *(observation[:, 0], action[:, 0]),
    )
    return jnp.stack([difference, -3.0 * difference])

  config = dataclasses.replace(
    config,
    exploration_noise=0.0,
    num_action_candidates=1 if evaluation else 8,
    num_evaluation_candidates=8 if evaluation else 1,
  )
  networks = make_fake_networks(lambda o, a, t: 0.9 * a, q_values, 1)
  observation = np.asarray(goals(5, 1))
  actions = act(networks, config, observation, evaluation)
  assert actions.shape == (5, 1)
  jax.effects_barrier()
  asked_observations, candidates = np.concatenate(seen, axis=1)
  assert len(set(candidates.tolist())) > 20
  for goal, action in zip(observation[:, 0], actions[:, 0], strict=True):
    own = candidates[asked_observations == goal]
    assert own.shape == (8,)
    assert action == own[np.argmax(np.minimum(own - goal, -3 * (own - goal)))]


def test_keys_and_examples_are_independent(config):
  networks = make_fake_networks(lambda o, a, t: 0.9 * a)
  observation = jnp.zeros((2_000, 3))
  first, second = (
    act(networks, config, observation, seed=seed) for seed in (0, 1)
  )
  # Correlations of independent draws: five standard errors.
  tolerance = 5 / np.sqrt(2_000)
  columns = np.concatenate([first, second], axis=1).T
  np.testing.assert_allclose(np.corrcoef(columns), np.eye(4), atol=tolerance)
  shifted = np.corrcoef(first[1:, 0], first[:-1, 0])[0, 1]
  assert abs(shifted) < tolerance
