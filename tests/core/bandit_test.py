"""Losses and sampler together, on one-dimensional bandits with a known Q."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import losses
from tests.core import closed_forms

SCHEDULE = diffusion.make_schedule("vp", 5)


def quadratic(action):
  return -0.5 * (action - 0.3) ** 2


def bimodal(action):
  return -((action**2 - 0.49) ** 2)


@pytest.fixture
def networks(make_spec):
  return acme_qsm.make_networks(
    make_spec(acme_qsm.ArraySpec((1,)), shape=(1,)),
    acme_qsm.QSMConfig(
      policy_hidden_sizes=(64, 64), time_embedding_size=16, time_hidden_size=16
    ),
  )


def draw_noisy_actions(key, size):
  """Uniform actions ("replay") noised to random denoising steps."""
  action_key, noise_key, step_key = jax.random.split(key, 3)
  action = jax.random.uniform(action_key, (size, 1), minval=-1.0, maxval=1.0)
  steps = jax.random.randint(step_key, (size,), 0, SCHEDULE.num_steps)
  noise = jax.random.normal(noise_key, (size, 1))
  return diffusion.add_noise(SCHEDULE, action, noise, steps), steps


@pytest.fixture
def learn(networks, optimized):
  """Trains a denoiser by Q-score matching; returns it, and 10 000 actions.

  By 3 000 steps on batches of 256 noisy actions.
  """

  def train(q_function, scale):
    # The rate falls to zero, so that no noise of the last steps is left.
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3_000))
    observation, size = jnp.zeros((10_000, 1)), 10_000

    def loss(params, key):
      noisy_action, steps = draw_noisy_actions(key, 256)
      gradient = jax.vmap(jax.vmap(jax.grad(q_function)))(noisy_action)
      noise_prediction = networks.denoise(
        params, observation[:256], noisy_action, steps
      )
      return jnp.mean(
        losses.q_score_matching_loss(noise_prediction, gradient, scale)
      )

    def step(carry, key):
      params, opt_state = carry
      gradients = jax.grad(loss)(params, key)
      updates, opt_state = optimizer.update(gradients, opt_state)
      return (optax.apply_updates(params, updates), opt_state), None

    @jax.jit
    def run(params, keys):
      start = params, optimizer.init(params)
      params = jax.lax.scan(step, start, keys)[0][0]
      noisy_action, steps = draw_noisy_actions(jax.random.key(3), size)
      prediction = networks.denoise(params, observation, noisy_action, steps)
      actions = diffusion.sample(
        jax.random.key(2),
        lambda action, step: networks.denoise(
          params, observation, action, step
        ),
        SCHEDULE,
        (size, 1),
      )
      return noisy_action, prediction, actions[:, 0]

    # Running it takes longer than to compile it.
    with optimized():
      return run(
        networks.init_denoiser(jax.random.key(0)),
        jax.random.split(jax.random.key(1), 3_000),
      )

  return train


def test_quadratic(learn):
  noisy_action, prediction, actions = learn(quadratic, 1.0)
  # By hand: grad Q = 0.3 - a, and eps points the other way.
  expected = noisy_action - 0.3
  error = np.sqrt(np.mean((prediction - expected) ** 2) / np.mean(expected**2))
  assert error < 0.02
  # What the sampler makes of the exact eps = a - 0.3, by simulation in numpy.
  rng = np.random.default_rng(0)
  exact = closed_forms.reverse_process(
    closed_forms.vp_alpha_bars(5),
    lambda action, t: action - 0.3,
    rng.normal(size=100_000),
    "noise_mean",
    clip=1.0,
    rng=rng,
  )
  # Known: 0.381 and 0.363. Five standard errors are 0.02; the rest is for what
  # the denoiser has not learnt.
  assert (exact.mean(), exact.std()) == pytest.approx((0.381, 0.363), abs=0.01)
  assert np.mean(actions) == pytest.approx(exact.mean(), abs=0.03)
  assert np.std(actions) == pytest.approx(exact.std(), abs=0.03)


def test_both_modes_are_found(learn):
  _, _, actions = learn(bimodal, 50.0)
  shares = np.mean(actions < -0.5), np.mean(actions > 0.5)
  # Half each by symmetry; what is learnt tilts it, a lost mode empties one.
  assert min(shares) >= 0.3, shares


def test_boltzmann_target_samples_the_density_of_twice_kappa():
  # In the limit of many denoising steps the reverse process with the score
  # kappa grad Q - a at every noise level,
  #   da = (a / 2 + kappa grad Q - a) beta ds + sqrt(beta) dW,
  # leaves exp(2 kappa Q(a)) N(a; 0, 1) invariant. Here Q = -(a - m)^2 / 2:
  # N(2 kappa m / (1 + 2 kappa), 1 / (1 + 2 kappa)).
  kappa, goal, size = 3.0, 0.5, 20_000
  schedule = diffusion.make_schedule("vp", 480)

  def denoise(action, step):
    # The exact minimiser of the loss, found by its own gradient: the loss is
    # quadratic in eps, mean_A (eps - eps*)^2 with A = 1.
    gradient = jax.grad(
      lambda e: jnp.sum(
        losses.boltzmann_score_matching_loss(
          e,
          goal - action,
          action,
          jnp.full((size,), schedule.alpha_bars[step]),
          kappa,
        )
      )
    )(jnp.zeros_like(action))
    return -gradient / 2

  actions = jax.jit(
    lambda key: diffusion.sample(key, denoise, schedule, (size, 1), clip=None)
  )(jax.random.key(0))
  variance = 1 / (1 + 2 * kappa)
  # Five standard errors, plus 0.01 for the discretisation (beta <= 0.02).
  np.testing.assert_allclose(
    jnp.mean(actions),
    2 * kappa * goal * variance,
    atol=5 * np.sqrt(variance / size) + 0.01,
  )
  np.testing.assert_allclose(
    jnp.var(actions),
    variance,
    atol=5 * variance * np.sqrt(2 / size) + 0.01,
  )
