"""The Langevin sampler, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion

SIZE = 50_000


def test_without_noise_it_climbs_as_the_paper_writes_it():
  # Psenka et al. (2024), eq. 6: a + Psi(a) / K, here with the score 2 Psi.
  num_steps, shape = 5, (4, 2)

  def psi(action):
    return jnp.sin(action) - 0.5

  def sample(size):
    return diffusion.sample_langevin(
      jax.random.key(0),
      lambda action: 2.0 * psi(action),
      jnp.full((num_steps,), size),
      shape,
      temperature=0.0,
      clip=None,
    )

  action = np.asarray(sample(0.0), np.float64)  # No step: the start.
  assert np.std(action) > 0.3
  for _ in range(num_steps):
    action = action + (np.sin(action) - 0.5) / num_steps
  np.testing.assert_allclose(sample(1 / num_steps), action, rtol=1e-5)


# The second has more steps than the sampler unrolls.
@pytest.mark.parametrize("num_steps", [3, 50])
def test_moments_of_a_gaussian_at_every_number_of_steps(num_steps):
  # With the score (m - a) / s^2 each step is linear: the mean's distance to m
  # shrinks by 1 - delta / (2 s^2), the variance likewise, plus delta.
  mean, scale, start_scale = 0.7, 0.5, 2.0
  step_sizes = np.linspace(0.3, 0.05, num_steps)
  samples = diffusion.sample_langevin(
    jax.random.key(1),
    lambda action: (mean - action) / scale**2,
    step_sizes,
    (SIZE, 1),
    clip=None,
    start_scale=start_scale,
  )
  distance, variance = -mean, start_scale**2
  for size in step_sizes:
    shrink = 1 - size / (2 * scale**2)
    distance, variance = shrink * distance, shrink**2 * variance + size
  # Five standard errors.
  np.testing.assert_allclose(
    jnp.mean(samples), mean + distance, atol=5 * np.sqrt(variance / SIZE)
  )
  np.testing.assert_allclose(
    jnp.var(samples), variance, atol=5 * variance * np.sqrt(2 / SIZE)
  )


def test_noise_is_of_variance_delta_times_temperature_squared():
  samples = diffusion.sample_langevin(
    jax.random.key(2),
    jnp.zeros_like,
    jnp.asarray([0.5, 0.25]),
    (SIZE, 1),
    temperature=0.4,
    clip=None,
    start_scale=0.0,
  )
  variance = 0.4**2 * 0.75
  np.testing.assert_allclose(
    jnp.var(samples), variance, atol=5 * variance * np.sqrt(2 / SIZE)
  )


def test_every_sample_is_clipped_but_the_start():
  entered = []

  def score(action):
    jax.debug.callback(lambda a: entered.append(np.abs(a).max()), action)
    return 100.0 * action

  samples = diffusion.sample_langevin(
    jax.random.key(3), score, 1.0 - jnp.arange(20) / 20, (64, 2), clip=0.5
  )
  jax.effects_barrier()
  assert len(entered) == 20
  entered.sort()
  assert entered[-1] > 1.0  # The start.
  assert entered[-2] <= 0.5
  assert jnp.abs(samples).max() <= 0.5


def test_compiled_and_over_keys_it_is_the_same():
  def sample(key):
    return diffusion.sample_langevin(
      key, lambda action: -action, jnp.full((4,), 0.5), (4, 3)
    )

  keys = jax.random.split(jax.random.key(4), 3)
  together = jax.jit(jax.vmap(sample))(keys)
  one_by_one = jnp.stack([sample(key) for key in keys])
  np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-6)


def test_arguments_out_of_range_are_named():
  def sample(**kwargs):
    diffusion.sample_langevin(
      jax.random.key(0), lambda a: a, jnp.ones((2,)), (1, 1), **kwargs
    )

  for kwargs in ({"clip": -1.0}, {"temperature": -1.0}, {"start_scale": -1.0}):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
      sample(**kwargs)
  with pytest.raises(AssertionError):
    diffusion.sample_langevin(
      jax.random.key(0), lambda a: a[:1], jnp.ones((2,)), (4, 2)
    )
