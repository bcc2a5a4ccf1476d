"""Losses and sampler together, on one-dimensional bandits with a known Q."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import losses

SCHEDULE = diffusion.make_schedule("vp", 5)


def quadratic(action):
  return -0.5 * (action - 0.3) ** 2


def bimodal(action):
  return -((action**2 - 0.49) ** 2)


def action_gradient(q_function, action):
  return jax.vmap(jax.vmap(jax.grad(q_function)))(action)


@pytest.fixture
def networks(make_spec, make_array_spec):
  return acme_qsm.make_networks(
    make_spec(make_array_spec((1,)), shape=(1,)),
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


def train(networks, loss_fn):
  """Trains a denoiser by 3000 steps on batches of 256 noisy actions."""
  # The rate falls to zero, so that no noise of the last steps is left.
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))
  observation = jnp.zeros((256, 1))
  params = networks.init_denoiser(jax.random.key(0))

  def loss(params, key):
    noisy_action, steps = draw_noisy_actions(key, 256)
    noise_prediction = networks.denoise(
      params, observation, noisy_action, steps
    )
    return jnp.mean(loss_fn(noise_prediction, noisy_action))

  def step(carry, key):
    params, opt_state = carry
    gradients = jax.grad(loss)(params, key)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  @jax.jit
  def run(params, keys):
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

  # Unlike elsewhere in tests, running it takes longer than to compile it.
  jax.config.update("jax_disable_most_optimizations", False)
  try:
    return run(params, jax.random.split(jax.random.key(1), 3000))
  finally:
    jax.config.update("jax_disable_most_optimizations", True)


def sample(networks, params, size):
  actions = diffusion.sample(
    jax.random.key(2),
    lambda action, step: networks.denoise(
      params, jnp.zeros((size, 1)), action, step
    ),
    SCHEDULE,
    (size, 1),
  )
  return np.asarray(actions)[:, 0]


def train_by_q_score_matching(networks, q_function, scale):
  return train(
    networks,
    lambda noise_prediction, noisy_action: losses.q_score_matching_loss(
      noise_prediction, action_gradient(q_function, noisy_action), scale
    ),
  )


def test_quadratic(networks):
  params = train_by_q_score_matching(networks, quadratic, 1.0)
  noisy_action, steps = draw_noisy_actions(jax.random.key(3), 10_000)
  noise_prediction = networks.denoise(
    params, jnp.zeros((10_000, 1)), noisy_action, steps
  )
  # By hand: grad Q = 0.3 - a, and eps points the other way.
  expected = noisy_action - 0.3
  error = jnp.sqrt(
    jnp.mean((noise_prediction - expected) ** 2) / jnp.mean(expected**2)
  )
  assert error < 0.02
  # What the sampler makes of the exact eps = a - 0.3, by simulation in numpy.
  actions = sample(networks, params, 10_000)
  rng = np.random.default_rng(0)
  action = rng.normal(size=100_000)
  betas = 1 - np.exp(-0.1 / 5 - 4.95 * (2 * np.arange(1, 6) - 1) / 25)
  alpha_bars = np.cumprod(1 - betas)
  for t in reversed(range(5)):
    action = action - betas[t] / np.sqrt(1 - alpha_bars[t]) * (action - 0.3)
    noise = rng.normal(size=action.shape) if t else 0.0
    action = action / np.sqrt(1 - betas[t]) + np.sqrt(betas[t]) * noise
    action = np.clip(action, -1, 1)
  # Known: 0.381 and 0.363. Five standard errors are 0.02; the rest is for what
  # the denoiser has not learnt.
  np.testing.assert_allclose(
    (action.mean(), action.std()), (0.381, 0.363), atol=0.01
  )
  np.testing.assert_allclose(actions.mean(), action.mean(), atol=0.03)
  np.testing.assert_allclose(actions.std(), action.std(), atol=0.03)


def test_both_modes_are_found(networks):
  params = train_by_q_score_matching(networks, bimodal, 50.0)
  actions = sample(networks, params, 10_000)
  shares = (actions < -0.5).mean(), (actions > 0.5).mean()
  # Half each by symmetry; what is learnt tilts it, a lost mode empties one.
  assert min(shares) >= 0.3, shares


def test_boltzmann_target_samples_the_density_of_twice_kappa():
  # In the limit of many denoising steps the reverse process with the score
  # kappa grad Q - a at every noise level,
  #   da = (a / 2 + kappa grad Q - a) beta ds + sqrt(beta) dW,
  # leaves exp(2 kappa Q(a)) N(a; 0, 1) invariant. Here Q = -(a - m)^2 / 2:
  # N(2 kappa m / (1 + 2 kappa), 1 / (1 + 2 kappa)).
  kappa, goal, size = 3.0, 0.5, 20_000
  schedule = diffusion.make_schedule("vp", 500)

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
