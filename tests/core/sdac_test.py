"""Soft diffusion actor-critic, against closed forms, numpy and quadrature."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import weights
from tests.core import closed_forms

NUM_STEPS = 3
ALPHA_BARS = closed_forms.vp_alpha_bars(NUM_STEPS)
SLOPE = 0.1


@pytest.fixture
def config():
  """What tests lean on said, whatever the defaults."""
  return acme_qsm.SDACConfig(
    policy_hidden_sizes=(32, 32),
    critic_hidden_sizes=(16,),
    time_embedding_size=8,
    time_hidden_size=16,
    num_denoising_steps=NUM_STEPS,
    noise_schedule="vp",
    # The critics stay what they are.
    critic_learning_rate=1e-12,
    policy_update_period=1,
    noisy_action_source="gaussian",
    num_reverse_samples=64,
    reverse_sampling="unbounded",
    weights="self_normalized",
    boltzmann_temperature=1.0,
    temperature_update="constant",
    temperature_scales_noise=False,
    num_target_candidates=1,
  )


# Linear Q tilts the reverse noises: they are N(-k, 1) with
# k = sqrt((1 - abar) / abar) slope / temperature, whatever a_t is.
TILTS = np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS) * SLOPE


@pytest.mark.parametrize("source", ["policy", "replay", "uniform", "gaussian"])
def test_the_gradient_is_the_same_wherever_noisy_actions_are_from(
  config, make_constant_networks, make_step, source, make_flat_batch
):
  # Theorem 3.2: the optimum does not depend on where a_t is drawn. The second
  # critic is higher everywhere, so that the first one is asked.
  size = 20_000
  config = dataclasses.replace(config, noisy_action_source=source)
  networks = make_constant_networks([[SLOPE], [SLOPE]], [0.0, 1.0])
  gradient, _, _ = make_step(networks, config)(
    make_flat_batch(size, action=0.4)
  )
  # Constant predictions 0.3 per step, each drawn a third of the time; a mean
  # over the batch of 2 (0.3 - weighted noise). K self-normalised weights are
  # biased by about k exp(k^2) / K; five standard errors of at most
  # 2 sqrt(2 / 3) per example.
  expected = 2 / 3 * (0.3 + TILTS)
  bias = 2 / 3 * TILTS.max() * np.exp(TILTS.max() ** 2) / 64
  tolerance = 5 * 2 * np.sqrt(2 / 3 / size) + bias
  np.testing.assert_allclose(gradient[:, 0], expected, atol=tolerance)
  # Were the tilt missing, or of the other sign, this would fail.
  assert 2 / 3 * TILTS[-1] > 5 * tolerance


def test_weights(config):
  q_value = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)

  def weigh(kind, temperature, reward_scale=1.0):
    return weights.weigh(
      dataclasses.replace(config, weights=kind, reward_scale=reward_scale),
      jnp.asarray(q_value),
      jnp.float32(temperature),
    )

  unnormalized = np.exp(q_value / 0.5)
  np.testing.assert_allclose(
    weigh("self_normalized", 0.5),
    unnormalized / unnormalized.sum(axis=1, keepdims=True),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    weigh("exponential", 0.5), unnormalized / 5, rtol=1e-5
  )
  standard = (q_value - q_value.mean()) / q_value.std()
  np.testing.assert_allclose(
    weigh("normalized_exponential", 0.5), np.exp(standard / 0.5) / 5, rtol=1e-4
  )
  # The temperature is in units of the unscaled return: the reference's
  # softmax(5 / lambda Q) for rewards times 0.2.
  np.testing.assert_allclose(
    weigh("self_normalized", 5.0, reward_scale=0.2),
    weigh("self_normalized", 1.0),
    rtol=1e-5,
  )


@pytest.mark.parametrize("clip", [3.0, 8.0])
def test_an_outlier_s_normalised_weight_is_finite(config, clip):
  # One among 256 x 16 is 64 deviations from the mean: exp(64 / 0.5) is beyond
  # single precision.
  q_value = np.zeros((256, 16), np.float32)
  q_value[3, 7] = 1.0
  config = dataclasses.replace(
    config,
    weights="normalized_exponential",
    temperature_update="constant",
    boltzmann_temperature=0.5,
    q_value_clip=clip,
  )
  args = (config, jnp.asarray(q_value), jnp.float32(0.5))
  expected = np.full((256, 16), np.exp(-1 / 64 / 0.5) / 16)
  expected[3, 7] = np.exp(clip / 0.5) / 16
  np.testing.assert_allclose(weights.weigh(*args), expected, rtol=1e-3)
  np.testing.assert_allclose(
    weights.normalized_weights(*args),
    expected / expected.sum(axis=1, keepdims=True),
    rtol=1e-3,
  )


@pytest.mark.parametrize("kind", ["exponential", "normalized_exponential"])
@pytest.mark.parametrize("offset", [0.0, -1e3, 1e3])
def test_shares_are_finite_where_weights_are_not(config, kind, offset):
  q_value = np.random.default_rng(0).normal(size=(4, 5)) + offset
  config = dataclasses.replace(config, weights=kind)
  temperature = temperature_lib.Temperature(jnp.log(jnp.float32(0.5)), ())
  args = (config, jnp.asarray(q_value, jnp.float32), temperature.value)
  weight, normalized = weights.weigh(*args), weights.normalized_weights(*args)
  scale = q_value.std() if kind == "normalized_exponential" else 1.0
  expected = np.exp((q_value - offset) / scale / 0.5)
  expected /= expected.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(normalized, expected, rtol=1e-3)
  metrics = weights.measure(
    temperature, weight, normalized, jnp.arange(4) % 3, 3
  )
  for name in ("weight_kl", "effective_sample_size"):
    assert np.isfinite(metrics[name])
  if kind == "exponential" and offset:
    # The case is what it says: all weights are 0, or infinite.
    assert np.all(np.asarray(weight) == (np.inf if offset > 0 else 0.0))


def test_unevenness_of_weights_by_noise_level(
  config, make_constant_networks, make_step, make_flat_batch
):
  step = make_step(make_constant_networks([[SLOPE], [SLOPE]]), config)
  batch = make_flat_batch(20_000)

  def measure(slope):
    params = {"b": jnp.zeros(2), "c": jnp.full((2, 1), slope)}
    _, metrics, _ = step(batch, critic_params=params)
    return metrics

  # Flat critics: all weights are one K-th. Steep ones: one weight is all.
  for slope, size, kl in ((0.0, 64.0, 0.0), (1e4, 1.0, np.log(64))):
    metrics = measure(slope)
    np.testing.assert_allclose(
      metrics["effective_sample_size"], size, rtol=0.05
    )
    np.testing.assert_allclose(metrics["largest_weight"], 64 / size, rtol=0.05)
    for name in ("", "_low_noise", "_mid_noise", "_high_noise"):
      np.testing.assert_allclose(
        metrics[f"weight_kl{name}"], kl, atol=0.02 * np.log(64)
      )
  # In between, weights are the more uneven the noisier: by T = 3, a third is
  # one step. For weights exp(-k e) of standard normal e and many samples, the
  # divergence is k^2 / 2.
  metrics = measure(SLOPE)
  for step_index, name in enumerate(("low", "mid")):
    np.testing.assert_allclose(
      metrics[f"weight_kl_{name}_noise"], TILTS[step_index] ** 2 / 2, rtol=0.1
    )


def test_the_target_kl_is_met(config, make_constant_networks, make_flat_batch):
  config = dataclasses.replace(
    config,
    temperature_update="target_kl",
    target_kl=0.7,
    temperature_learning_rate=0.02,
    min_temperature=1e-6,
    num_reverse_samples=16,
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[1.0], [1.0]]), config
  )
  batch = make_flat_batch(256)
  _, metrics = jax.jit(
    lambda state: jax.lax.scan(
      lambda state, _: core.step(state, batch), state, length=1_000
    )
  )(core.init(jax.random.key(0)))
  # 200 batches' mean; a batch's own is within about 0.04.
  assert np.mean(metrics["weight_kl"][-200:]) == pytest.approx(0.7, abs=0.03)
  temperature = np.mean(metrics["boltzmann_temperature"][-200:])
  # By quadrature in numpy, of weights exp(-k e / temperature) of 16 normals.
  noise = np.random.default_rng(0).normal(size=(4_000, 16))
  divergences = [
    divergence_of(noise * np.sqrt((1 - alpha_bar) / alpha_bar) / temperature)
    for alpha_bar in ALPHA_BARS
  ]
  assert np.mean(divergences) == pytest.approx(0.7, abs=0.03)


def divergence_of(logits):
  """The mean divergence of softmax weights [B, K] from equal ones."""
  share = scipy.special.softmax(logits, axis=1)
  entropy = -np.mean(scipy.special.xlogy(share, share).sum(axis=1))
  return np.log(logits.shape[1]) - entropy


def test_the_temperature_follows_q_s_scale_at_one_pace(config):
  # 16 samples of a normal Q; by quadrature in numpy, where 2 nats are.
  noise = np.random.default_rng(0).normal(size=(20_000, 16))
  settled = scipy.optimize.root_scalar(
    lambda t: divergence_of(noise / t) - 2.0, bracket=(0.05, 2.0)
  ).root
  config = dataclasses.replace(
    config,
    temperature_update="target_kl",
    target_kl=2.0,
    temperature_learning_rate=3e-3,
    num_reverse_samples=16,
  )

  @jax.jit
  def run(start, scales):
    def update(temperature, inputs):
      i, scale = inputs
      key = jax.random.fold_in(jax.random.key(0), i)
      share = losses.self_normalized_weights(
        scale * jax.random.normal(key, (64, 16)), temperature.value
      )
      after = weights.update_temperature(config, temperature, share, i)
      return after, after.value

    start = temperature_lib.start(start, config.temperature_learning_rate)
    steps = jnp.arange(len(scales))
    return jax.lax.scan(update, start, (steps, scales))[1]

  def updates_until_settled(found, goal):
    return np.flatnonzero(np.abs(np.log(found / goal)) < 0.05)[0]

  # Adam's steps of 3e-3 in the logarithm take 1 260 from 44 times as much and
  # 1 040 from a 23rd at the least, and they are the smaller the nearer it is.
  # With the temperature for a factor of the gradient it was 6 300 and 760.
  one = jnp.ones(3_000)
  assert updates_until_settled(run(10.0, one), settled) < 2_500
  assert updates_until_settled(run(0.01, one), settled) < 1_700
  # Where Q's scale falls 100 times, the divergence is what it was soon.
  found = run(settled, jnp.concatenate([one, 0.01 * one]))
  np.testing.assert_allclose(found[2_999], settled, rtol=0.05)
  np.testing.assert_allclose(found[-1], 0.01 * settled, rtol=0.05)


def test_the_temperature_has_a_floor(config):
  config = dataclasses.replace(
    config,
    temperature_update="target_kl",
    temperature_learning_rate=1.0,
    boltzmann_temperature=1.0,
    min_temperature=0.5,
  )
  # Equal weights have no divergence: nothing holds the temperature.
  temperature = weights.init_temperature(config)
  for i in range(3):
    temperature = weights.update_temperature(
      config, temperature, jnp.full((8, 64), 1 / 64), jnp.int32(i)
    )
  np.testing.assert_allclose(np.exp(temperature.log_value), 0.5)


def test_the_references_decay(config):
  # Adam on log lambda with the gradient 0.5 log(2 pi e (0.1 lambda)^2) + 0.9,
  # once in 125 updates of the policy.
  config = dataclasses.replace(
    config,
    temperature_update="reference_decay",
    temperature_learning_rate=7e-3,
    temperature_update_period=125,
    boltzmann_temperature=5.0,
    exploration_noise=0.1,
  )

  def update(temperature, i):
    temperature = weights.update_temperature(
      config, temperature, jnp.ones((1, 2)), i
    )
    return temperature, temperature.log_value

  _, found = jax.jit(
    lambda temperature: jax.lax.scan(update, temperature, jnp.arange(125_000))
  )(weights.init_temperature(config))
  logarithm, mean, square, expected = np.log(5.0), 0.0, 0.0, []
  for i in range(1_000):
    gradient = 0.5 * np.log(2 * np.pi * np.e * (0.1 * np.exp(logarithm)) ** 2)
    gradient += 0.9
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient**2
    logarithm -= (
      7e-3
      * (mean / (1 - 0.9 ** (i + 1)))
      / (np.sqrt(square / (1 - 0.999 ** (i + 1))) + 1e-8)
    )
    expected.append(logarithm)
  np.testing.assert_allclose(found[:124], np.log(5.0), rtol=1e-6)
  np.testing.assert_allclose(found[124::125], expected, atol=1e-3)
  # exp(-0.9) / sqrt(2 pi e) = 0.0984 is where the noise has that entropy.
  assert np.exp(found[-1]) == pytest.approx(0.984, abs=0.01)


@pytest.mark.parametrize("scales_noise", [False, True])
def test_the_temperature_scales_the_noise_on_actions(
  config, make_constant_networks, scales_noise
):
  config = dataclasses.replace(
    config,
    boltzmann_temperature=3.0,
    temperature_scales_noise=scales_noise,
    exploration_noise=0.05,
    # The sampler is deterministic then.
    sampling_temperature=0.0,
    sampling_start_scale=0.0,
    evaluation_temperature=0.0,
  )
  networks = make_constant_networks([[0.0], [0.0]])
  core = acme_qsm.make_learner_core(networks, config)
  state = core.init(jax.random.key(0))._replace(
    policy_params=jnp.zeros((NUM_STEPS, 1)), steps=jnp.int32(1)
  )
  params = core.policy_params(state)
  observation = jnp.zeros((10_000, 1))
  action = acme_qsm.make_policy(networks, config)(
    params, jax.random.key(1), observation
  )
  # Five standard errors of a standard deviation of 10 000 draws: 3.5 %.
  deviation = 0.15 if scales_noise else 0.05
  assert np.std(action) == pytest.approx(deviation, rel=0.035)
  action = acme_qsm.make_policy(networks, config, evaluation=True)(
    params, jax.random.key(1), observation
  )
  assert np.std(action) == 0.0


def test_no_gradient_flows_through_the_sampler(
  config, make_constant_networks, make_step, make_flat_batch
):
  # Same draws, once with the policy's actions as they are and once with a
  # sampler that reads other, equal parameters: the gradient is the same.
  config = dataclasses.replace(config, noisy_action_source="policy")
  networks = make_constant_networks([[SLOPE], [SLOPE]])

  def denoise(params, observation, action, step):
    if not step.ndim:  # The sampler's; the loss asks for a step per example.
      params = jnp.full((NUM_STEPS, 1), 0.3)
    return networks.denoise(params, observation, action, step)

  gradient, expected = (
    make_step(each, config)(make_flat_batch(64))[0]
    for each in (networks, dataclasses.replace(networks, denoise=denoise))
  )
  np.testing.assert_array_equal(gradient, expected)


def test_a_boltzmann_policy_on_the_box_is_learnt(
  config, make_spec, make_flat_batch, optimized
):
  # Two modes of unequal weight: Langevin dynamics would keep what it starts
  # with, reverse sampling finds the weights.
  num_steps, num_updates = 10, 1_500

  def q_value(action):
    return -6.0 * (action**2 - 0.36) ** 2 + 0.5 * action

  config = dataclasses.replace(
    config,
    num_denoising_steps=num_steps,
    noisy_action_source="uniform",
    noisy_action_scale=1.5,
    num_reverse_samples=32,
    reverse_sampling="truncated",
    sampler="posterior",
    boltzmann_temperature=0.5,
    policy_learning_rate=3e-3,
    policy_learning_rate_schedule="cosine",
    policy_learning_rate_steps=num_updates,
  )
  networks = acme_qsm.make_networks(
    make_spec(acme_qsm.ArraySpec((1,)), shape=(1,)),
    config,
  )
  networks = dataclasses.replace(
    networks,
    q_values=lambda params, o, a: jnp.tile(jnp.sum(q_value(a), -1), (2, 1)),
  )
  core = acme_qsm.make_learner_core(networks, config)
  batch = make_flat_batch(256)

  def step(state, _):
    return core.step(state, batch)[0], None

  train = jax.jit(lambda s: jax.lax.scan(step, s, length=num_updates)[0])
  with optimized():
    state = train(core.init(jax.random.key(0)))
  actions = diffusion.sample_posterior(
    jax.random.key(1),
    lambda a, t: networks.denoise(
      state.policy_params, jnp.zeros((5_000, 1)), a, t
    ),
    diffusion.make_schedule("vp", num_steps),
    (5_000, 1),
  )
  grid = np.linspace(-1, 1, 401)
  share = np.average(grid > 0, weights=np.exp(q_value(grid) / 0.5))
  assert 0.7 < share < 0.9
  exact = closed_forms.draw_on_box(
    lambda a: q_value(a) / 0.5, closed_forms.vp_alpha_bars(num_steps), 5_000
  )
  assert np.mean(exact > 0) == pytest.approx(share, abs=0.05)
  for dimension in np.asarray(actions).T:
    # Standard errors of the shares of both are 0.006; the rest is what a small
    # network makes of it.
    assert np.mean(dimension > 0) == pytest.approx(np.mean(exact > 0), abs=0.05)
    assert np.mean(dimension) == pytest.approx(np.mean(exact), abs=0.05)
    assert np.std(dimension) == pytest.approx(np.std(exact), abs=0.05)
