"""The Langevin sampler, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion


def test_without_noise_it_climbs_as_the_paper_writes_it():
  # Psenka et al. (2024), eq. 6: a + Psi(a) / K, here with the score 2 Psi.
  num_steps = 5

  @jax.jit
  def sample(size):
    return diffusion.sample_langevin(
      jax.random.key(0),
      lambda action: 2.0 * (jnp.sin(action) - 0.5),
      jnp.full((num_steps,), size),
      (4, 2),
      temperature=0.0,
      clip=None,
    )

  action = np.asarray(sample(0.0), np.float64)  # No step: the start.
  assert np.std(action) > 0.3
  for _ in range(num_steps):
    action = action + (np.sin(action) - 0.5) / num_steps
  np.testing.assert_allclose(sample(1 / num_steps), action, rtol=1e-5)


# The second has more steps than the sampler unrolls.
@pytest.mark.parametrize("num_steps", [3, 40])
def test_moments_of_a_gaussian_at_every_number_of_steps(num_steps):
  # With the score (m - a) / s^2 each step is linear: the mean's distance to m
  # shrinks by 1 - delta / (2 s^2), the variance likewise, plus delta.
  mean, scale, start_scale, temperature, size = 0.7, 0.5, 2.0, 0.6, 50_000
  step_sizes = np.linspace(0.3, 0.05, num_steps)
  samples = jax.jit(
    lambda key: diffusion.sample_langevin(
      key,
      lambda action: (mean - action) / scale**2,
      step_sizes,
      (size, 1),
      clip=None,
      temperature=temperature,
      start_scale=start_scale,
    )
  )(jax.random.key(1))
  distance, variance = -mean, start_scale**2
  for delta in step_sizes:
    shrink = 1 - delta / (2 * scale**2)
    distance *= shrink
    variance = shrink**2 * variance + delta * temperature**2
  # Five standard errors.
  assert np.mean(samples) == pytest.approx(
    mean + distance, abs=5 * np.sqrt(variance / size)
  )
  assert np.var(samples) == pytest.approx(variance, rel=5 * np.sqrt(2 / size))


def test_every_sample_is_clipped_but_the_start():
  entered = []

  def score(action):
    jax.debug.callback(lambda a: entered.append(np.abs(a).max()), action)
    return 100.0 * action

  samples = jax.jit(
    lambda key: diffusion.sample_langevin(
      key, score, 1.0 - jnp.arange(5) / 5, (64, 2), clip=0.5
    )
  )(jax.random.key(3))
  jax.effects_barrier()
  assert len(entered) == 5
  entered.sort()
  assert entered[-1] > 1.0  # The start.
  assert entered[-2] <= 0.5
  assert jnp.abs(samples).max() <= 0.5
