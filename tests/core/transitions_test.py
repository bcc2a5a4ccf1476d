"""One denoising step's Gaussian, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion
from tests.core import closed_forms

STEPS = jnp.arange(5)


@pytest.fixture
def arrays():
  """Noise predictions and noisy actions, each [5, 3]."""
  return np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("name", ["noise_mean", "posterior", "fixed_large"])
def test_transition_is_the_papers(arrays, name, clip):
  schedule = diffusion.make_schedule("vp", 5)
  kwargs = {"name": name}
  if name == "fixed_large":
    kwargs = {"name": "posterior", "posterior_variance": name}
  mean, std = jax.jit(
    lambda *args: diffusion.transition(schedule, *args, clip=clip, **kwargs)
  )(*arrays, STEPS)
  assert mean.shape == (5, 3)
  for t, (prediction, action) in enumerate(zip(*arrays, strict=True)):
    expected_mean, expected_std = closed_forms.reverse_step(
      closed_forms.alpha_bars_of(schedule), t, prediction, action, name, clip
    )
    # Rounding, times 1 / sqrt(alpha_bar) = 12.5 at most.
    np.testing.assert_allclose(mean[t], expected_mean, atol=2e-5)
    np.testing.assert_allclose(std[t, 0], expected_std, rtol=1e-5)


def test_both_transitions_have_one_mean_where_nothing_is_clipped(arrays):
  alpha_bars = closed_forms.vp_alpha_bars(5)
  for t, (prediction, action) in enumerate(zip(*arrays, strict=True)):
    (one, _), (other, _) = (
      closed_forms.reverse_step(alpha_bars, t, prediction, action, name)
      for name in ("noise_mean", "posterior")
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["noise_mean", "posterior"])
def test_transition_of_one_step_is_that_of_equal_steps(arrays, name):
  schedule = diffusion.make_schedule("cosine", 5)
  one, many = (
    diffusion.transition(schedule, *arrays, step, name=name)
    for step in (jnp.int32(3), jnp.full((5,), 3))
  )
  for a, b in zip(one, many, strict=True):
    np.testing.assert_allclose(np.broadcast_to(a, b.shape), b, rtol=1e-6)


def test_names_must_be_known():
  zeros, schedule = jnp.zeros((1, 1)), diffusion.make_schedule("vp", 2)
  args = jax.random.key(0), lambda a, t: a, schedule, (1, 1)
  unknown = {"posterior_variance": "learned"}
  with pytest.raises(ValueError, match=r"'ddim'.*'posterior'"):
    diffusion.transition(schedule, zeros, zeros, jnp.int32(0), name="ddim")
  for refuse in (
    lambda: diffusion.transition(schedule, zeros, zeros, STEPS[0], **unknown),
    lambda: diffusion.sample_posterior(*args, variance="learned"),
    lambda: diffusion.sample_chain(*args, **unknown),
  ):
    with pytest.raises(ValueError, match=r"'learned'.*'fixed_large'"):
      refuse()
