"""Schedules and forward noising, against closed forms."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion
from acme_qsm.diffusion import schedules

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


def test_vp_schedule_known_numbers():
  schedule = diffusion.make_schedule("vp", 5)
  np.testing.assert_allclose(
    schedule.betas, [0.1959, 0.4588, 0.6358, 0.7549, 0.8350], atol=5e-5
  )
  np.testing.assert_allclose(
    schedule.alpha_bars, [0.8041, 0.4352, 0.1585, 0.0389, 0.0064], atol=5e-5
  )


@pytest.mark.parametrize("num_steps", [1, 5, 20, 100])
def test_vp_schedule_is_that_of_the_sde(num_steps):
  # alpha_bar(u) = exp(-int_0^u beta(v) dv) with beta from 0.1 to 10, at the
  # end of each of the T intervals of [0, 1].
  u = np.arange(1, num_steps + 1) / num_steps
  np.testing.assert_allclose(
    diffusion.make_schedule("vp", num_steps).alpha_bars,
    np.exp(-(0.1 * u + 9.9 * u**2 / 2)),
    rtol=1e-5,
  )


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
  ("name", "num_steps", "expected", "tolerance"),
  [
    ("vp", 20, 0.0064, 5e-5),
    ("cosine", 20, 6e-6, 5e-7),
    ("linear", 5, 0.951, 5e-4),
  ],
)
def test_noise_left_at_the_end(name, num_steps, expected, tolerance):
  schedule = diffusion.make_schedule(name, num_steps)
  np.testing.assert_allclose(
    schedule.alpha_bars[-1], expected, rtol=0, atol=tolerance
  )


def test_linear_schedule_is_linear():
  betas = np.asarray(diffusion.make_schedule("linear", 5).betas)
  np.testing.assert_allclose(betas[[0, -1]], [1e-4, 2e-2], rtol=1e-6)
  np.testing.assert_allclose(np.diff(betas), 0.0199 / 4, rtol=1e-4)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_schedule_needs_steps(num_steps):
  with pytest.raises(ValueError, match=f"num_steps.*{num_steps}"):
    diffusion.make_schedule("vp", num_steps)


def test_schedule_must_be_known():
  with pytest.raises(ValueError, match=r"'sigmoid'.*'vp'"):
    diffusion.make_schedule("sigmoid", 5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", SCHEDULES)
def test_add_noise_is_the_chain_of_small_steps(name):
  # q(a_t | a_{t-1}) = N(sqrt(alpha_t) a_{t-1}, beta_t), composed one by one.
  schedule = diffusion.make_schedule(name, 10)
  mean, variance = 1.0, 0.0
  for t in range(10):
    beta = float(schedule.betas[t])
    mean *= np.sqrt(1 - beta)
    variance = (1 - beta) * variance + beta
    one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
    got_mean = diffusion.add_noise(schedule, one, zero, jnp.asarray(t))
    got_scale = diffusion.add_noise(schedule, zero, one, jnp.asarray(t))
    np.testing.assert_allclose(got_mean, [[mean]], rtol=1e-3)
    np.testing.assert_allclose(got_scale, [[np.sqrt(variance)]], rtol=1e-3)


@pytest.mark.parametrize("step", [3, [0, 4, 2, 2]])
def test_add_noise_values(step):
  rng = np.random.default_rng(0)
  action, noise = rng.normal(size=(2, 4, 3)).astype(np.float32)
  schedule = diffusion.make_schedule("vp", 5)
  got = diffusion.add_noise(
    schedule, jnp.asarray(action), jnp.asarray(noise), jnp.asarray(step)
  )
  steps = np.broadcast_to(step, (4,))
  for i, t in enumerate(steps):
    alpha_bar = float(schedule.alpha_bars[t])
    expected = (
      np.sqrt(alpha_bar) * action[i] + np.sqrt(1 - alpha_bar) * noise[i]
    )
    np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-6)


def test_add_noise_moments():
  schedule = diffusion.make_schedule("vp", 5)
  size = 100_000
  noise = jax.random.normal(jax.random.key(0), (size, 1))
  noisy = diffusion.add_noise(
    schedule, jnp.full((size, 1), 0.5), noise, jnp.asarray(2)
  )
  variance = 1 - 0.1585
  # Five standard errors, plus what the four known digits leave open.
  np.testing.assert_allclose(
    jnp.mean(noisy),
    np.sqrt(0.1585) * 0.5,
    atol=5 * np.sqrt(variance / size) + 5e-5,
  )
  np.testing.assert_allclose(
    jnp.var(noisy), variance, atol=5 * variance * np.sqrt(2 / size) + 5e-5
  )


def test_add_noise_wants_equal_shapes_and_integer_steps():
  schedule = diffusion.make_schedule("vp", 5)
  with pytest.raises(AssertionError):
    diffusion.add_noise(
      schedule, jnp.zeros((4, 2)), jnp.zeros((4, 1)), jnp.asarray(0)
    )
  with pytest.raises(AssertionError):
    diffusion.add_noise(
      schedule, jnp.zeros((4, 2)), jnp.zeros((4, 2)), jnp.asarray(0.0)
    )


@pytest.mark.parametrize(
  ("bounds", "last_alpha_bar", "tolerance"),
  [
    # The reference implementation of soft diffusion actor-critic, scale 0.8,
    # and the same with the scale 0.3 of its other methods.
    ((0.8 * 1e-4, 0.8 * 0.999), 5e-6, 5e-7),
    ((0.3 * 1e-4, 0.3 * 0.999), 0.0346, 5e-5),
    # The toy problem of that paper.
    ((0.001, 0.999), 6e-11, 5e-12),
  ],
)
def test_linear_schedules_of_others(bounds, last_alpha_bar, tolerance):
  start, end = bounds
  schedule = diffusion.make_schedule(
    "linear", 20, beta_start=start, beta_end=end
  )
  step = (end - start) / 19
  expected = [start + i * step for i in range(20)]
  np.testing.assert_allclose(schedule.betas, expected, rtol=1e-6)
  np.testing.assert_allclose(
    schedule.alpha_bars[-1], last_alpha_bar, rtol=0, atol=tolerance
  )


def test_vp_schedule_of_other_rates():
  # alpha_bar(1) = exp(-(beta_start + beta_end) / 2) of a linear rate.
  schedule = diffusion.make_schedule("vp", 20, beta_start=0.5, beta_end=4.0)
  np.testing.assert_allclose(schedule.alpha_bars[-1], np.exp(-2.25), rtol=1e-5)
  u = np.arange(1, 21) / 20
  np.testing.assert_allclose(
    schedule.alpha_bars, np.exp(-(0.5 * u + 3.5 * u**2 / 2)), rtol=1e-5
  )


@pytest.mark.parametrize(
  ("name", "bounds"), [("vp", (0.1, 10.0)), ("linear", (1e-4, 2e-2))]
)
def test_bounds_left_out_are_the_defaults(name, bounds):
  start, end = bounds
  for kwargs in (
    {},
    {"beta_start": start},
    {"beta_end": end},
    {"beta_start": start, "beta_end": end},
  ):
    got = diffusion.make_schedule(name, 7, **kwargs)
    for values, expected in zip(
      got, diffusion.make_schedule(name, 7), strict=True
    ):
      np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("field", ["beta_start", "beta_end"])
def test_cosine_schedule_has_no_bounds(field):
  with pytest.raises(ValueError, match=r"'cosine'.*beta_start.*0\.5"):
    diffusion.make_schedule("cosine", 5, **{field: 0.5})


@pytest.mark.parametrize("name", ["vp", "linear"])
@pytest.mark.parametrize(
  "bounds",
  [
    (0.0, 0.5),
    (-0.1, 0.5),
    (0.5, 0.4),
    (0.1, float("inf")),
    (float("nan"), 0.5),
    (0.1, float("nan")),
  ],
)
def test_bounds_must_be_positive_and_in_order(name, bounds):
  start, end = bounds
  with pytest.raises(ValueError, match=r"0 < beta_start <= beta_end"):
    diffusion.make_schedule(name, 5, beta_start=start, beta_end=end)


def test_linear_bounds_are_variances_below_one():
  with pytest.raises(ValueError, match=r"beta_end.*1\.0"):
    diffusion.make_schedule("linear", 5, beta_end=1.0)
  diffusion.make_schedule("vp", 5, beta_end=20.0)


@pytest.mark.parametrize(
  ("name", "num_steps", "kwargs"),
  [
    ("linear", 5, {"beta_start": 1e-9}),
    ("linear", 200, {"beta_end": 0.999}),
    ("vp", 5, {"beta_end": 200.0}),
  ],
)
def test_schedule_must_fit_float32(name, num_steps, kwargs):
  with pytest.raises(ValueError, match="float32"):
    diffusion.make_schedule(name, num_steps, **kwargs)


@pytest.mark.parametrize("step", [3, [0, 4, 2, 2]])
def test_remove_noise_undoes_add_noise(step):
  rng = np.random.default_rng(0)
  action, noise = rng.normal(size=(2, 4, 3)).astype(np.float32)
  schedule = diffusion.make_schedule("vp", 5)
  step = jnp.asarray(step)
  noisy = diffusion.add_noise(schedule, action, noise, step)
  clean = diffusion.remove_noise(schedule, noisy, noise, step)
  # Rounding of numbers of size one, times 1 / sqrt(alpha_bar) = 12.5 at most.
  np.testing.assert_allclose(clean, action, atol=1e-5)
