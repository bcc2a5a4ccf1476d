"""Networks against numpy, and networks of one's own."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import networks as networks_lib
from acme_qsm.networks import layers
from acme_qsm.networks import modules


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def numpy_mish(x):
  x = np.asarray(x, np.float64)
  return x * np.tanh(np.logaddexp(0.0, x))


def test_mish():
  x = np.concatenate(
    [np.linspace(-30, 30, 2001), [-1e4, -80.0, -50.0, 0.0, 50.0, 88.0, 1e4]]
  ).astype(np.float32)
  # Single precision; what is below its normal numbers may be zero.
  np.testing.assert_allclose(
    layers.mish(jnp.asarray(x)), numpy_mish(x), rtol=2e-6, atol=1e-37
  )


def test_mish_gradient():
  x = np.concatenate([np.linspace(-30, 30, 1001), [-1e4, 50.0, 1e4]])
  # d/dx x tanh(s) = tanh(s) + x (1 - tanh(s)^2) sigmoid(x), s = softplus(x).
  tanh = np.tanh(np.logaddexp(0.0, x))
  sigmoid = np.exp(-np.logaddexp(0.0, -x))
  gradient = jax.jit(jax.vmap(jax.grad(layers.mish)))(x.astype(np.float32))
  np.testing.assert_allclose(
    gradient, tanh + x * (1 - tanh**2) * sigmoid, rtol=1e-4, atol=2e-6
  )


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 3)])
def test_mish_is_of_each_element(shape):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  expected = numpy_mish(x)
  for function in (layers.mish, jax.jit(layers.mish)):
    np.testing.assert_allclose(function(jnp.asarray(x)), expected, rtol=2e-6)


@pytest.mark.parametrize("first", [np.inf, -np.inf, np.nan])
def test_an_infinity_stays_where_it_is(first):
  x = jnp.asarray([[first, 0.5], [-0.5, 2.0]], jnp.float32)
  result = np.asarray(layers.mish(x)).ravel()
  np.testing.assert_allclose(
    result[1:], numpy_mish([0.5, -0.5, 2.0]), rtol=2e-6
  )


def test_perceptron_is_dense_on_the_concatenated_inputs():
  net = hk.without_apply_rng(
    hk.transform(lambda *xs: layers.Perceptron((5, 4), 2, layers.mish)(*xs))
  )
  inputs = normal(0, 6, 3), normal(1, 6, 1), normal(2, 6, 4)
  params = jax.jit(net.init)(jax.random.key(3), *inputs)
  # Biases start at zero: make them count.
  params = jax.tree.map(lambda x: x + 0.1, params)
  first, second, last = (
    params[name]
    for name in ("perceptron", "perceptron/linear", "perceptron/linear_1")
  )
  weights = np.concatenate(
    [np.asarray(first[f"first_weights_{i}"], np.float64) for i in range(3)]
  )
  assert weights.shape == (8, 5)
  hidden = numpy_mish(np.concatenate(inputs, axis=1) @ weights + 0.1)
  hidden = numpy_mish(hidden @ np.asarray(second["w"]) + 0.1)
  expected = hidden @ np.asarray(last["w"]) + 0.1
  np.testing.assert_allclose(
    net.apply(params, *inputs), expected, rtol=1e-4, atol=1e-5
  )


def test_perceptron_starts_xavier_uniform_over_all_inputs():
  net = hk.transform(lambda *xs: layers.Perceptron((200,), 1, jax.nn.relu)(*xs))
  params = net.init(jax.random.key(0), jnp.ones((1, 70)), jnp.ones((1, 30)))
  weights = np.concatenate(
    [params["perceptron"][f"first_weights_{i}"] for i in range(2)]
  )
  bound = np.sqrt(6 / (100 + 200))
  assert np.abs(weights).max() <= bound
  # Uniform on +-bound: its variance, and five standard errors of 20 000 draws
  # (those of a uniform's variance are sqrt(0.8 / n) of it).
  np.testing.assert_allclose(
    weights.var(), bound**2 / 3, rtol=5 * np.sqrt(0.8 / 20_000)
  )


def test_time_embedding():
  num_steps, size = 7, 4

  def embed(t):
    table, rows = modules.FourierTimeEmbedding(num_steps, size, 3)(t)
    return table[rows]

  net = hk.without_apply_rng(hk.transform(embed))
  steps = jnp.asarray([0, 6, 2])
  params = jax.jit(net.init)(jax.random.key(0), steps)
  params = jax.tree.map(lambda x: x + 0.1, params)
  name = "fourier_time_embedding"
  frequencies = np.asarray(params[name]["frequencies"], np.float64)
  assert frequencies.shape == (2,)
  first = params[f"{name}/perceptron"]
  last = params[f"{name}/perceptron/linear"]
  for i, t in enumerate([0, 6, 2]):
    angles = 2 * np.pi * t * frequencies
    features = np.concatenate([np.cos(angles), np.sin(angles)])
    hidden = numpy_mish(features @ np.asarray(first["first_weights_0"]) + 0.1)
    expected = hidden @ np.asarray(last["w"]) + 0.1
    np.testing.assert_allclose(
      net.apply(params, steps)[i], expected, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
      net.apply(params, jnp.asarray(t)), expected, rtol=1e-3, atol=1e-5
    )


def test_looking_up_after_projecting_is_looking_up_before():
  table, x = normal(0, 5, 3), normal(1, 4, 2)
  rows = jnp.asarray([4, 0, 4, 2])
  net = hk.without_apply_rng(
    hk.transform(
      lambda *inputs: layers.Perceptron([6], 1, jax.nn.tanh)(*inputs)
    )
  )
  params = jax.jit(net.init)(jax.random.key(0), x, table[rows])

  def before(table):
    return jnp.sum(net.apply(params, x, table[rows]) ** 2)

  def after(table):
    lookup = layers.Lookup(table, rows)
    return jnp.sum(net.apply(params, x, lookup) ** 2)

  (values, gradients) = jax.jit(
    lambda table: list(
      zip(*(jax.value_and_grad(f)(table) for f in (after, before)), strict=True)
    )
  )(table)
  np.testing.assert_allclose(*values, rtol=1e-5)
  np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_one_step_for_all_is_that_step_for_each(networks):
  params = networks.init_denoiser(jax.random.key(0))
  observation, action = normal(1, 6, 3), normal(2, 6, 2)
  outputs = []
  for t in range(3):
    together = networks.denoise(params, observation, action, jnp.asarray(t))
    outputs.append(together)
    np.testing.assert_allclose(
      together,
      networks.denoise(params, observation, action, jnp.full((6,), t)),
      rtol=1e-5,
      atol=1e-6,
    )
  # The step matters: no two of them give the same.
  outputs = np.stack(outputs)
  distances = np.abs(outputs[:, None] - outputs).max(axis=(2, 3))
  assert (distances + np.eye(3) > 1e-3).all()


def test_examples_do_not_mix(networks):
  params = networks.init_denoiser(jax.random.key(0))
  observation, action = normal(1, 6, 3), normal(2, 6, 2)
  steps = jnp.asarray([0, 1, 2, 2, 1, 0])
  together = networks.denoise(params, observation, action, steps)
  for i in range(6):
    one = (x[i : i + 1] for x in (observation, action, steps))
    np.testing.assert_allclose(
      together[i : i + 1],
      networks.denoise(params, *one),
      rtol=1e-4,
      atol=1e-5,
    )


def test_each_critic_has_parameters_of_its_own(environment_spec, config):
  networks, one = (
    networks_lib.make_networks(
      environment_spec, dataclasses.replace(config, num_critics=number)
    )
    for number in (3, 1)
  )
  params = jax.jit(networks.init_critics)(jax.random.key(0))
  observation, action = normal(1, 6, 3), normal(2, 6, 2)
  values = networks.q_values(params, observation, action)
  assert values.shape == (3, 6)
  for i in range(3):
    assert jnp.abs(values[i] - values[i - 1]).min() > 1e-4
    np.testing.assert_allclose(
      one.q_values(
        jax.tree.map(lambda x, i=i: x[i : i + 1], params), observation, action
      )[0],
      values[i],
      rtol=1e-4,
      atol=1e-5,
    )


def test_hidden_sizes_are_the_configs(environment_spec, config):
  config = dataclasses.replace(
    config, policy_hidden_sizes=(7,), critic_hidden_sizes=(9, 8)
  )
  networks = networks_lib.make_networks(environment_spec, config)
  denoiser = jax.eval_shape(networks.init_denoiser, jax.random.key(0))
  critics = jax.eval_shape(networks.init_critics, jax.random.key(1))
  assert networks.action_size == 2
  assert denoiser["denoiser/perceptron"]["first_bias"].shape == (7,)
  assert denoiser["denoiser/perceptron/linear"]["w"].shape == (7, 2)
  assert critics["critic/perceptron"]["first_bias"].shape == (2, 9)
  assert critics["critic/perceptron/linear"]["w"].shape == (2, 9, 8)
  embedding = denoiser["denoiser/fourier_time_embedding"]
  assert embedding["frequencies"].shape == (2,)  # Half of the features.


def test_own_denoiser(environment_spec, config):
  networks = networks_lib.make_networks(
    environment_spec,
    config,
    denoiser=lambda o, a, t: hk.Linear(2, name="mine")(o) + a,
  )
  params = networks.init_denoiser(jax.random.key(0))
  assert set(params) == {"mine"}
  observation, action = normal(1, 6, 3), normal(2, 6, 2)
  np.testing.assert_allclose(
    networks.denoise(params, observation, action, jnp.asarray(0)),
    observation @ params["mine"]["w"] + action,
    rtol=1e-5,
    atol=1e-6,
  )
  assert "critic/perceptron" in networks.init_critics(jax.random.key(0))


def test_own_critic(environment_spec, config):
  networks = networks_lib.make_networks(
    environment_spec,
    config,
    critic=lambda o, a: hk.Linear(1, name="mine")(
      jnp.concatenate([o, a], axis=-1)
    )[:, 0],
  )
  params = networks.init_critics(jax.random.key(0))
  assert set(params) == {"mine"}
  weights = params["mine"]["w"]
  assert weights.shape == (2, 5, 1)
  assert (weights[0] != weights[1]).all()
  observation, action = normal(1, 6, 3), normal(2, 6, 2)
  inputs = np.concatenate([observation, action], axis=1)
  np.testing.assert_allclose(
    networks.q_values(params, observation, action),
    (inputs @ np.asarray(weights))[:, :, 0],
    rtol=1e-4,
    atol=1e-5,
  )
  assert "denoiser/perceptron" in networks.init_denoiser(jax.random.key(0))


def test_own_networks_take_images(make_spec, config):
  def features(observation):
    flat = observation.reshape(observation.shape[0], -1).astype(jnp.float32)
    return hk.Linear(4)(flat / 255)

  networks = networks_lib.make_networks(
    make_spec(acme_qsm.ArraySpec((4, 4, 3), np.uint8)),
    config,
    denoiser=lambda o, a, t: hk.Linear(2)(features(o)) + a,
    critic=lambda o, a: jnp.sum(features(o), axis=-1) + jnp.sum(a, axis=-1),
  )
  observation = jnp.zeros((6, 4, 4, 3), jnp.uint8)
  params = networks.init_denoiser(jax.random.key(0))
  output = networks.denoise(
    params, observation, jnp.ones((6, 2)), jnp.asarray(0)
  )
  np.testing.assert_allclose(output, jnp.ones((6, 2)), rtol=1e-6)


@pytest.mark.parametrize(
  "denoiser",
  [
    lambda o, a, t: hk.Linear(3)(a),
    lambda o, a, t: hk.Linear(2)(a)[0],
    lambda o, a, t: jnp.zeros((1, 2)),
  ],
  ids=["wrong size", "no batch axis", "wrong batch size"],
)
def test_denoiser_of_the_wrong_shape(environment_spec, config, denoiser):
  with pytest.raises(ValueError, match=r"denoiser must return .*2, 2.*got"):
    networks_lib.make_networks(environment_spec, config, denoiser=denoiser)


@pytest.mark.parametrize(
  "critic",
  [
    lambda o, a: hk.Linear(1)(a),
    lambda o, a: jnp.mean(hk.Linear(1)(a)),
  ],
  ids=["trailing axis", "no batch axis"],
)
def test_critic_of_the_wrong_shape(environment_spec, config, critic):
  with pytest.raises(ValueError, match="critic must return"):
    networks_lib.make_networks(environment_spec, config, critic=critic)


def test_default_networks_refuse_images(make_spec, config):
  spec = make_spec(acme_qsm.ArraySpec((4, 4, 3)))
  with pytest.raises(ValueError, match=r"\(4, 4, 3\).*your own"):
    networks_lib.make_networks(spec, config)
