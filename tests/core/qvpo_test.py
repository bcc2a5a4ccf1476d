"""Q-weighted variational policy optimisation, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm.core import denoising
from acme_qsm.methods import qvpo


def test_the_best_and_its_advantage():
  rng = np.random.default_rng(0)
  action = rng.normal(size=(5, 4, 2)).astype(np.float32)
  q_value = rng.normal(size=(5, 4)).astype(np.float32)
  q_value[3] = 2.0  # No one is better than another.
  best, advantage = qvpo.take_best(jnp.asarray(action), jnp.asarray(q_value))
  for i in range(5):
    np.testing.assert_array_equal(best[i], action[i, q_value[i].argmax()])
    expected = q_value[i].max() - q_value[i].mean()
    assert float(advantage[i]) == pytest.approx(expected, abs=1e-6)
  assert float(advantage[3]) == 0.0


def test_random_actions_count_less_and_less():
  config = acme_qsm.QVPOConfig(
    random_action_weight=0.02,
    random_action_weight_end=0.002,
    random_action_steps=1_000,
  )
  found = [
    float(qvpo.random_action_weight(config, jnp.int32(updates)))
    for updates in (0, 500, 1_000, 5_000)
  ]
  np.testing.assert_allclose(found, [0.02, 0.011, 0.002, 0.002], rtol=1e-5)


class Networks:
  """A denoiser that predicts its parameter times the sum of its inputs."""

  def denoise(self, params, observation, noisy_action, steps):
    return params * (noisy_action + observation + steps[:, None])


def test_denoising_of_several_actions():
  schedule = acme_qsm.diffusion.make_schedule("vp", 4)
  rng = np.random.default_rng(0)
  observation = rng.normal(size=(6, 2)).astype(np.float32)
  action = rng.normal(size=(6, 3, 2)).astype(np.float32)
  weight = rng.uniform(size=(6, 3)).astype(np.float32)
  loss, steps = denoising.weighted_loss(
    Networks(),
    schedule,
    0.7,
    jax.random.key(0),
    jnp.asarray(observation),
    jnp.asarray(action),
    jnp.asarray(weight),
  )
  # The same noises, as it draws them.
  _, noise_key = jax.random.split(jax.random.key(0))
  noise = np.asarray(jax.random.normal(noise_key, (18, 2))).reshape(6, 3, 2)
  alpha_bar = np.asarray(schedule.alpha_bars)[np.asarray(steps)][:, None, None]
  noisy = np.sqrt(alpha_bar) * action + np.sqrt(1 - alpha_bar) * noise
  prediction = 0.7 * (
    noisy + observation[:, None] + np.asarray(steps)[:, None, None]
  )
  error = ((prediction - noise) ** 2).mean(axis=-1)
  expected = (weight * error).sum(axis=1).mean()
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert set(np.asarray(steps)) <= {0, 1, 2, 3}


@pytest.mark.parametrize("num_random_actions", [0, 3])
def test_the_gradient_is_that_of_weighted_denoising(
  make_constant_networks, make_step, num_random_actions, make_flat_batch
):
  # Of constant predictions 0.3 per step: 2 (0.3 - noise) times the weights,
  # which say nothing of the noises that are added after.
  config = acme_qsm.QVPOConfig(
    num_denoising_steps=3,
    critic_learning_rate=1e-12,
    num_policy_samples=4,
    num_random_actions=num_random_actions,
    random_action_weight=0.5,
    random_action_weight_end=0.5,
    num_target_candidates=1,
  )
  size = 8_000
  step = make_step(make_constant_networks([[3.0], [3.0]]), config)
  batch = make_flat_batch(size)
  gradient, metrics, _ = step(batch)
  weight = float(metrics["advantage"]) * (1 + 0.5 * num_random_actions)
  # Of four actions in [-1, 1] with Q = 3 a, the best has at most 4.5 more.
  assert 0.0 < float(metrics["advantage"]) < 4.5
  # Five standard errors of a third of the batch, weights twice their mean.
  tolerance = 5 * 2 * 2 * weight * np.sqrt((1 + 0.09) / 3 / size)
  np.testing.assert_allclose(
    gradient[:, 0], 2 / 3 * 0.3 * weight, atol=tolerance
  )
  # Flat critics teach nothing.
  flat = {"b": jnp.zeros(2), "c": jnp.zeros((2, 1))}
  gradient, _, _ = step(batch, critic_params=flat)
  assert np.abs(gradient).max() < 1e-9
