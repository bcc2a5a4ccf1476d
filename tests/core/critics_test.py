"""Critics by choice: their losses on paper, and that each learns."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import acme_qsm
from acme_qsm import losses
from acme_qsm.core import normalization
from acme_qsm.networks import heads


def with_critics(config, **fields):
  return dataclasses.replace(
    config,
    critic_hidden_sizes=(16, 16),
    num_atoms=41,
    min_value=-2.0,
    max_value=8.0,
    num_quantiles=8,
    **fields,
  )


def test_the_lowest_categorical_target_on_paper():
  # Three atoms; the second critic's target has the lower mean, 0.8 + 0.25.
  atoms = jnp.array([0.0, 1.0, 2.0])
  next_probabilities = np.array([[[0.1, 0.2, 0.7]], [[0.2, 0.8, 0.0001]]])
  next_probabilities /= next_probabilities.sum(-1, keepdims=True)
  probabilities = np.array([[[0.2, 0.3, 0.5]], [[0.6, 0.3, 0.1]]])
  loss = losses.categorical_double_q_loss(
    jnp.log(probabilities),
    atoms,
    jnp.array([0.25]),
    jnp.array([0.5]),
    jnp.log(next_probabilities),
  )
  # r + d z = 0.25, 0.75, 1.25: shared out between the two nearest atoms.
  low, middle, high = next_probabilities[1, 0]
  target = np.array(
    [
      0.75 * low + 0.25 * middle,
      0.25 * low + 0.75 * middle + 0.75 * high,
      0.25 * high,
    ]
  )
  expected = np.sum(target * np.log(1.0 / probabilities[:, 0]))
  np.testing.assert_allclose(loss, [expected], rtol=1e-5)


def test_a_terminal_categorical_target_is_the_reward():
  atoms = jnp.linspace(0.0, 4.0, 5)
  logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
  loss = losses.categorical_double_q_loss(
    logits, atoms, jnp.array([1.0, 9.0, -9.0]), jnp.zeros(3), logits
  )
  # What is beyond the atoms counts as the last, or the first, of them.
  log_probabilities = np.array(jax.nn.log_softmax(logits))
  expected = np.sum(-log_probabilities[:, [0, 1, 2], [1, 4, 0]], axis=0)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_hl_gauss_on_paper():
  atoms = np.linspace(-1.0, 3.0, 9)
  rng = np.random.default_rng(0)
  logits, next_logits = rng.normal(size=(2, 2, 1, 9))
  reward, discount = 0.3, 0.5
  probabilities = np.exp(next_logits) / np.exp(next_logits).sum(-1)[..., None]
  value = reward + discount * (probabilities @ atoms).min()
  gaussian = scipy.stats.norm(value, 0.75 * 0.5)
  target = gaussian.cdf(atoms + 0.25) - gaussian.cdf(atoms - 0.25)
  target /= target.sum()
  log_probabilities = logits - np.log(np.exp(logits).sum(-1))[..., None]
  loss = losses.hl_gauss_double_q_loss(
    *(
      jnp.asarray(x, jnp.float32)
      for x in (logits, atoms, [reward], [discount], next_logits)
    )
  )
  np.testing.assert_allclose(
    loss, [-np.sum(target * log_probabilities)], rtol=1e-5
  )


@jax.jit
def hl_gauss_target(atoms, value):
  """What critics are matched to: the loss's gradient is softmax less that."""
  size = len(value)
  logits = jnp.zeros((1, size, len(atoms)))
  gradient = jax.grad(
    lambda logits: jnp.sum(
      losses.hl_gauss_double_q_loss(
        logits, atoms, value, jnp.zeros(size), logits
      )
    )
  )(logits)
  return 1 / len(atoms) - gradient[0]


@pytest.mark.parametrize(
  ("low", "high", "num_atoms"),
  [(0.0, 200.0, 101), (0.0, 100.0, 101), (-10.0, 110.0, 121), (-1.0, 1.0, 2)],
)
def test_smoothing_keeps_the_value(low, high, num_atoms):
  atoms = np.linspace(low, high, num_atoms)
  width = atoms[1] - atoms[0]
  values = np.concatenate(
    [
      # At the ends, near them, and anywhere else.
      low + width * np.array([0.0, 0.01, 0.3, 0.5, 1.0, 2.2]),
      high - width * np.array([0.0, 0.01, 0.3, 0.5, 1.0, 2.2]),
      np.linspace(low, high, 37),
    ]
  )
  values = values[(values >= low) & (values <= high)]
  target = np.asarray(
    hl_gauss_target(*(x.astype(np.float32) for x in (atoms, values))),
    np.float64,
  )
  # To float32's digits of the atoms.
  np.testing.assert_allclose(
    target @ atoms, values, atol=2e-6 * max(abs(low), abs(high))
  )
  assert np.all(target > -1e-6)
  np.testing.assert_allclose(target.sum(axis=1), 1.0, atol=1e-5)
  # Four deviations from the ends it is the Gaussian that it was.
  inside = (values > low + 3 * width) & (values < high - 3 * width)
  gaussian = scipy.stats.norm(values[inside, None], 0.75 * width)
  expected = gaussian.cdf(atoms + width / 2) - gaussian.cdf(atoms - width / 2)
  np.testing.assert_allclose(target[inside], expected, atol=1e-4)


def test_hardly_any_smoothing_leaves_the_ends_as_they_are():
  atoms = jnp.linspace(0.0, 200.0, 101)
  found = losses.smooth_value(jnp.array([0.0, 100.0, 200.0]), atoms, 0.05)
  np.testing.assert_allclose(found, np.eye(101)[[0, 50, 100]], atol=1e-6)


@pytest.mark.parametrize(
  ("reward", "value"), [(0.0, 0.0), (2.0, 200.0), (1.0, 100.0)]
)
def test_smoothing_does_not_add_up(reward, value):
  # A critic that is its target at every step: from either end to r / (1 - g).
  atoms = jnp.linspace(0.0, 200.0, 101)

  @jax.jit
  def learn(value):
    def step(value, _):
      y = jnp.clip(reward + 0.99 * value, 0.0, 200.0)
      return losses.smooth_value(y, atoms, 0.75) @ atoms, None

    return jax.lax.scan(step, value, length=1_500)[0]

  # 0.99^1500 of the way is left; rounding by 1e-5 adds up to 1e-3.
  np.testing.assert_allclose(learn(jnp.array([0.0, 200.0])), value, atol=5e-3)


def test_quantile_loss_on_paper():
  quantiles = np.array([[[0.0, 1.0]], [[0.5, 0.5]]])
  next_quantiles = np.array([[[3.0, 5.0]], [[2.0, 4.0]]])  # The second's.
  target = 1.0 + 0.5 * next_quantiles[1, 0]
  expected = 0.0
  for critic in quantiles[:, 0]:
    for level, quantile in zip((0.25, 0.75), critic, strict=True):
      for y in target:
        error = y - quantile
        size = error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5
        expected += abs(level - (error < 0)) * size / 2
  loss = losses.quantile_double_q_loss(
    *(
      jnp.asarray(x, jnp.float32)
      for x in (quantiles, [1.0], [0.5], next_quantiles)
    )
  )
  np.testing.assert_allclose(loss, [expected], rtol=1e-5)


@pytest.mark.parametrize(
  "loss", ["categorical_double_q_loss", "hl_gauss_double_q_loss"]
)
def test_no_gradient_flows_into_categorical_targets(loss):
  logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
  gradient = jax.jit(
    jax.grad(
      lambda x: jnp.sum(
        getattr(losses, loss)(
          logits, jnp.linspace(0.0, 1.0, 5), jnp.ones(3), jnp.ones(3), x
        )
      )
    )
  )(logits)
  np.testing.assert_array_equal(gradient, 0.0)


def test_q_is_the_mean_of_the_distribution(config):
  config = with_critics(config, critic_head="categorical")
  atoms = heads.make_atoms(config)
  assert (len(atoms), atoms[0], atoms[-1]) == (41, -2.0, 8.0)
  logits = np.full((1, 41), -30.0, np.float32)
  logits[0, 10] = logits[0, 30] = 3.0
  np.testing.assert_allclose(
    heads.expected_value(config, jnp.asarray(logits)),
    [(atoms[10] + atoms[30]) / 2],
    rtol=1e-5,
  )
  config = with_critics(config, critic_head="quantile")
  np.testing.assert_allclose(
    heads.expected_value(config, jnp.array([[1.0, 2.0, 6.0]])), [3.0]
  )


@pytest.mark.parametrize(
  ("body", "head", "target"),
  [
    # Of a scalar head on a perceptron see learner_core_test.
    ("mlp", "categorical", "hl_gauss"),
    ("mlp", "quantile", "projection"),
    ("layer_norm", "scalar", "projection"),
    ("simba", "categorical", "projection"),
  ],
)
def test_every_critic_learns_the_return(
  environment_spec, config, make_batch, body, head, target
):
  # A reward of 1.5 at every step and discount 0.5: the value is 3.
  config = with_critics(
    config,
    critic_head=head,
    critic_body=body,
    categorical_target=target,
    discount=0.5,
    critic_learning_rate=1e-2,
    target_update_rate=0.1,
    num_denoising_steps=1,
  )
  networks = acme_qsm.make_networks(environment_spec, config)
  core = acme_qsm.make_learner_core(networks, config)
  batches = make_batch(0, 400, 16)._replace(
    reward=jnp.full((400, 16), 1.5), discount=jnp.ones((400, 16))
  )
  state, metrics = jax.jit(lambda s, b: jax.lax.scan(core.step, s, b))(
    core.init(jax.random.key(0)), batches
  )
  values = networks.q_values(
    state.critic_params, batches.observation[-1], batches.action[-1]
  )
  assert values.shape == (2, 16)
  # A small network at a large learning rate leaves some noise.
  np.testing.assert_allclose(jnp.mean(values), 3.0, rtol=0.1)
  assert all(np.isfinite(x).all() for x in metrics.values())


def test_layer_normalised_hidden_units_are_normal(environment_spec, config):
  # The output of residual blocks does not depend on the input's scale beyond
  # the first layer, whose bias is zero at the start: the first layer
  # normalisation takes any factor out where there is no block.
  config = with_critics(config, critic_body="layer_norm")
  networks = acme_qsm.make_networks(environment_spec, config)
  params = jax.jit(networks.init_critics)(jax.random.key(0))
  inputs = np.array([[0.3, -0.2, 0.9]]), np.array([[0.1, 0.5]])
  q_values = jax.jit(networks.q_values)
  np.testing.assert_allclose(
    q_values(params, *(10 * x for x in inputs)),
    q_values(params, *inputs),
    rtol=1e-3,
  )


def test_own_critics_have_the_heads_outputs(environment_spec, config):
  config = with_critics(config, critic_head="quantile")
  with pytest.raises(ValueError, match=r"critic must return .*\(2, 2, 8\)"):
    acme_qsm.make_networks(
      environment_spec, config, critic=lambda o, a: hk.Linear(1)(o)[..., 0]
    )


def test_a_head_that_networks_lack_is_refused(config, make_constant_networks):
  with pytest.raises(ValueError, match="critic_outputs"):
    acme_qsm.make_learner_core(
      make_constant_networks([[1.0]]),
      with_critics(config, critic_head="quantile"),
    )


@pytest.mark.parametrize(
  ("head", "fields"),
  [
    (
      "categorical",
      {
        "critic_head": "quantile",
        "num_atoms": 21,
        "min_value": -3.0,
        "max_value": 9.0,
      },
    ),
    ("scalar", {"critic_head": "categorical"}),
    ("quantile", {"num_quantiles": 16}),
  ],
)
def test_networks_of_another_head_are_refused(
  environment_spec, config, head, fields
):
  config = with_critics(config, critic_head=head)
  networks = acme_qsm.make_networks(environment_spec, config)
  for field, value in fields.items():
    with pytest.raises(
      ValueError, match=rf"made for {field}=.*QSMConfig\.{field} is {value!r}"
    ):
      acme_qsm.make_learner_core(
        networks, dataclasses.replace(config, **{field: value})
      )


def test_fields_of_other_heads_do_not_matter(
  environment_spec, config, make_constant_networks
):
  config = with_critics(config, critic_head="quantile")
  networks = acme_qsm.make_networks(environment_spec, config)
  acme_qsm.make_learner_core(
    networks, dataclasses.replace(config, num_atoms=21, max_value=9.0)
  )
  # Networks of other make say nothing of their head.
  assert make_constant_networks([[1.0]]).critic_head is None


def test_statistics_are_those_of_all_observations():
  rng = np.random.default_rng(0)
  batches = [
    rng.normal(3.0, 2.0, (size, 4)).astype(np.float32) for size in (5, 1, 60)
  ]
  statistics = normalization.init_statistics((4,))
  for batch in batches:
    statistics = normalization.update_statistics(statistics, jnp.asarray(batch))
  seen = np.concatenate(batches)
  assert statistics.num_seen == 66
  np.testing.assert_allclose(statistics.mean, seen.mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(statistics.variance, seen.var(axis=0), rtol=1e-4)
  normal = normalization.normalize(statistics, jnp.asarray(seen))
  np.testing.assert_allclose(jnp.mean(normal, axis=0), 0.0, atol=1e-5)
  np.testing.assert_allclose(jnp.std(normal, axis=0), 1.0, rtol=1e-4)


def test_a_feature_that_hardly_ever_changed_is_bounded():
  # It was always 3: its deviation is 0, which is taken for a thousandth.
  seen = jnp.array([[3.0, x] for x in (-1.0, 1.0) * 50])
  statistics = normalization.update_statistics(
    normalization.init_statistics((2,)), seen
  )
  found = normalization.normalize(
    statistics, jnp.array([[4.0, 0.5], [-1e6, 1e6], [3.001, -2.0]])
  )
  np.testing.assert_allclose(
    found, [[10.0, 0.5], [-10.0, 10.0], [1.0, -2.0]], rtol=2e-3
  )
  # A constant stays finite.
  assert np.all(normalization.normalize(statistics, seen)[:, 0] == 0.0)


def test_moments_keep_a_variance_that_is_small_beside_the_mean():
  # |mean| is 1 000 deviations. The batch's share is a tenth.
  rng = np.random.default_rng(0)
  old, new = rng.normal(100.0, 0.1, (2, 900)).astype(np.float32)
  new = new[:100] + np.float32(0.05)
  together = np.concatenate([old, new]).astype(np.float64)
  mean, variance = normalization.mix_moments(
    jnp.mean(old), jnp.var(old), jnp.asarray(new), 0.1
  )
  np.testing.assert_allclose(mean, together.mean(), rtol=1e-6)
  np.testing.assert_allclose(variance, together.var(), rtol=1e-3)


def test_normalised_training_does_not_see_the_scale(
  environment_spec, config, make_batch
):
  config = dataclasses.replace(config, normalize_observations=True)
  networks = acme_qsm.make_networks(environment_spec, config)
  core = acme_qsm.make_learner_core(networks, config)
  step, start = jax.jit(core.step), core.init(jax.random.key(0))

  def train(factor, offset):
    state = start
    for i in range(3):
      batch = make_batch(i, 8)
      state, _ = step(
        state,
        batch._replace(
          observation=factor * batch.observation + offset,
          next_observation=factor * batch.next_observation + offset,
        ),
      )
    policy = acme_qsm.make_policy(networks, config, evaluation=True)
    return policy(
      core.variables["evaluation_policy"](state),
      jax.random.key(1),
      factor * make_batch(9, 8).observation + offset,
    )

  np.testing.assert_allclose(train(100.0, 5.0), train(1.0, 0.0), atol=2e-2)
