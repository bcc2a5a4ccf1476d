"""Schedules and forward noising, against closed forms."""

import doctest

import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion
from acme_qsm.diffusion import schedules
from tests.core import closed_forms

SCHEDULES = ["vp", "cosine", "linear"]


def test_examples_in_docstrings():
  results = doctest.testmod(schedules)
  assert results.attempted > 0
  assert results.failed == 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 5, 20, 1000])
def test_schedule_identities(name, num_steps):
  schedule = diffusion.make_schedule(name, num_steps)
  assert schedule.num_steps == num_steps
  for values in schedule:
    assert values.shape == (num_steps,)
    assert values.dtype == jnp.float32
  betas, alphas, alpha_bars = (np.asarray(x, np.float64) for x in schedule)
  assert (betas > 0).all()
  assert (betas < 1).all()
  np.testing.assert_allclose(alphas, 1 - betas, atol=1e-7)
  # The product is made in double precision; that of rounded factors drifts by
  # about 6e-8 sqrt(T) from it.
  np.testing.assert_allclose(alpha_bars, np.cumprod(alphas), rtol=2e-5)
  assert (np.diff(alpha_bars) < 0).all()
  assert (np.diff(betas) > 0).all()
  if name == "vp" and num_steps < 1000:
    # That of the SDE, alpha_bar(u) = exp(-int_0^u beta(v) dv).
    np.testing.assert_allclose(
      alpha_bars, closed_forms.vp_alpha_bars(num_steps), rtol=1e-5
    )


def test_known_numbers():
  vp = diffusion.make_schedule("vp", 5)
  np.testing.assert_allclose(
    vp.betas, [0.1959, 0.4588, 0.6358, 0.7549, 0.8350], atol=5e-5
  )
  np.testing.assert_allclose(
    vp.alpha_bars, [0.8041, 0.4352, 0.1585, 0.0389, 0.0064], atol=5e-5
  )
  betas = np.asarray(diffusion.make_schedule("linear", 5).betas)
  np.testing.assert_allclose(betas, np.linspace(1e-4, 2e-2, 5), rtol=1e-4)


@pytest.mark.parametrize("num_steps", [5, 20, 100])
def test_cosine_schedule_is_a_squared_cosine(num_steps):
  def squared_cosine(t):
    return np.cos((t / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2

  schedule = diffusion.make_schedule("cosine", num_steps)
  expected = squared_cosine(np.arange(1, num_steps + 1)) / squared_cosine(0)
  # The cosine reaches zero at the last step, where beta is held at 0.999.
  np.testing.assert_allclose(schedule.alpha_bars[:-1], expected[:-1], rtol=1e-5)
  np.testing.assert_allclose(schedule.betas[-1], 0.999, rtol=1e-6)


@pytest.mark.parametrize(
  ("name", "num_steps", "bounds", "expected", "tolerance"),
  [
    ("vp", 20, (), 0.0064, 5e-5),
    # exp(-(beta_start + beta_end) / 2) of a linear rate.
    ("vp", 20, (0.5, 4.0), np.exp(-2.25), 1e-6),
    ("cosine", 20, (), 6e-6, 5e-7),
    ("linear", 5, (), 0.951, 5e-4),
    # The reference implementation of soft diffusion actor-critic, scale 0.8,
    # and the same with the scale 0.3 of its other methods.
    ("linear", 20, (0.8 * 1e-4, 0.8 * 0.999), 5e-6, 5e-7),
    ("linear", 20, (0.3 * 1e-4, 0.3 * 0.999), 0.0346, 5e-5),
    # The toy problem of that paper.
    ("linear", 20, (0.001, 0.999), 6e-11, 5e-12),
  ],
)
def test_noise_left_at_the_end(name, num_steps, bounds, expected, tolerance):
  bounds = dict(zip(("beta_start", "beta_end"), bounds, strict=False))
  schedule = diffusion.make_schedule(name, num_steps, **bounds)
  np.testing.assert_allclose(
    schedule.alpha_bars[-1], expected, rtol=0, atol=tolerance
  )


@pytest.mark.parametrize(
  ("name", "start", "end"), [("vp", 0.1, 10.0), ("linear", 1e-4, 2e-2)]
)
def test_bounds_left_out_are_the_defaults(name, start, end):
  expected = diffusion.make_schedule(name, 7)
  for kwargs in ({"beta_start": start}, {"beta_end": end}):
    got = diffusion.make_schedule(name, 7, **kwargs)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
  ("name", "num_steps", "bounds", "message"),
  [
    *((name, 5, bounds, r"0 < beta_start <= beta_end")
      for name in ("vp", "linear")
      for bounds in (
        *((0.0, 0.5), (-0.1, 0.5), (0.5, 0.4)),
        *((0.1, float("inf")), (float("nan"), 0.5), (0.1, float("nan"))),
      )),
    ("cosine", 5, (0.5, None), r"'cosine'.*beta_start.*0\.5"),
    ("cosine", 5, (None, 0.5), r"'cosine'.*beta_start.*0\.5"),
    ("linear", 5, (None, 1.0), r"beta_end.*1\.0"),
    ("linear", 5, (1e-9, None), "float32"),
    ("linear", 200, (None, 0.999), "float32"),
    ("vp", 5, (None, 200.0), "float32"),
    ("vp", 0, (None, None), r"num_steps.*0"),
    ("vp", -3, (None, None), r"num_steps.*-3"),
    ("sigmoid", 5, (None, None), r"'sigmoid'.*'vp'"),
  ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(name, num_steps, bounds, message):
  with pytest.raises(ValueError, match=message):
    diffusion.make_schedule(
      name, num_steps, beta_start=bounds[0], beta_end=bounds[1]
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_add_noise_is_the_chain_of_small_steps(name):
  # q(a_t | a_{t-1}) = N(sqrt(alpha_t) a_{t-1}, beta_t), composed one by one.
  schedule = diffusion.make_schedule(name, 10)
  steps, one, zero = jnp.arange(10), jnp.ones((10, 1)), jnp.zeros((10, 1))
  means = diffusion.add_noise(schedule, one, zero, steps)
  scales = diffusion.add_noise(schedule, zero, one, steps)
  mean, variance = 1.0, 0.0
  for t, beta in enumerate(np.asarray(schedule.betas, np.float64)):
    mean *= np.sqrt(1 - beta)
    variance = (1 - beta) * variance + beta
    np.testing.assert_allclose(means[t], [mean], rtol=1e-3)
    np.testing.assert_allclose(scales[t], [np.sqrt(variance)], rtol=1e-3)


@pytest.mark.parametrize("step", [3, [0, 4, 2, 2]])
def test_noise_is_added_and_removed(step):
  action, noise = (
    np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
  )
  schedule, step = diffusion.make_schedule("vp", 5), jnp.asarray(step)
  noisy = diffusion.add_noise(schedule, action, noise, step)
  alpha_bar = closed_forms.vp_alpha_bars(5)[np.broadcast_to(step, 4)][:, None]
  expected = np.sqrt(alpha_bar) * action + np.sqrt(1 - alpha_bar) * noise
  np.testing.assert_allclose(noisy, expected, rtol=1e-5, atol=1e-6)
  clean = diffusion.remove_noise(schedule, noisy, noise, step)
  # Rounding of numbers of size one, times 1 / sqrt(alpha_bar) = 12.5 at most.
  np.testing.assert_allclose(clean, action, atol=1e-5)


def test_add_noise_wants_equal_shapes_and_integer_steps():
  schedule, zeros = diffusion.make_schedule("vp", 5), jnp.zeros((4, 2))
  with pytest.raises(AssertionError):
    diffusion.add_noise(schedule, zeros, zeros[:, :1], jnp.asarray(0))
  with pytest.raises(AssertionError):
    diffusion.add_noise(schedule, zeros, zeros, jnp.asarray(0.0))
