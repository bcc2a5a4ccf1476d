"""Q-score matching's policy loss, against derivations on paper and autodiff."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import methods
from acme_qsm.core import Context
from acme_qsm.methods import qsm
from tests.core import closed_forms


@pytest.mark.parametrize(
  ("fields", "scale"),
  [
    ({"normalize_action_gradient": True, "action_gradient_clip": 2.0}, 3.0),
    # Published: -50 grad Q at T = 5, whatever the scale of grad Q.
    ("official", 50.0),
    (
      {
        "score_target": "action_gradient",
        "langevin": True,
        "action_gradient_critic": "lowest",
      },
      3.0,
    ),
    ({"langevin": True}, 3.0),
  ],
  ids=["boltzmann", "official", "langevin", "boltzmann_langevin"],
)
def test_denoiser_gradient_derived_anew(
  environment_spec, config, make_batch, make_step, fields, scale
):
  if fields == "official":
    sizes = (
      *("policy_hidden_sizes", "critic_hidden_sizes", "batch_size"),
      *("time_embedding_size", "time_hidden_size"),
    )
    config = dataclasses.replace(
      methods.METHODS["qsm"].preset(fields),
      **{name: getattr(config, name) for name in sizes},
    )
    assert config.num_denoising_steps == 5
  else:
    config = dataclasses.replace(
      config,
      **{
        "q_score_scale": scale,
        "normalize_action_gradient": False,
        **fields,
      },
    )
  networks = acme_qsm.make_networks(environment_spec, config)
  batch = make_batch(0, 8)
  seen = []

  def denoise(params, observation, action, step):
    if step.ndim:  # In the loss; the sampler's steps are scalars.
      jax.debug.callback(
        lambda *given: seen.append(jax.tree.map(np.array, given)),
        *(params, action, step),
      )
    return networks.denoise(params, observation, action, step)

  step = make_step(dataclasses.replace(networks, denoise=denoise), config)
  got_gradient, metrics, after = step(batch)
  jax.effects_barrier()
  params, noisy_action, steps = seen[-1]
  # All steps are drawn from, and no others.
  assert steps.shape == (8,)
  assert 0 <= steps.min() <= steps.max() < config.num_denoising_steps

  @jax.jit
  def differentiate_critics(critic_params):
    """Values and gradients of each updated critic, one example at a time."""

    def q_value(action, observation, i):
      return networks.q_values(critic_params, observation[None], action[None])[
        i, 0
      ]

    each = jax.vmap(jax.value_and_grad(q_value), in_axes=(0, 0, None))
    return [each(noisy_action, batch.observation, i) for i in range(2)]

  q_values, gradients = zip(
    *differentiate_critics(after.critic_params), strict=True
  )
  action_gradient = np.mean(gradients, axis=0)
  if config.action_gradient_critic == "lowest":
    first_is_lower = np.asarray(q_values[0] < q_values[1])
    assert 0 < first_is_lower.sum() < first_is_lower.size
    action_gradient = np.where(first_is_lower[:, None], *gradients)
  size = np.sqrt(np.mean(action_gradient**2))
  np.testing.assert_allclose(metrics["action_gradient_size"], size, rtol=1e-4)
  target = -scale * action_gradient
  if config.normalize_action_gradient:
    target = target / size
  if (clip := config.action_gradient_clip) is not None:
    # Some are clipped here, and some are not.
    assert 0 < np.sum(np.abs(target) > clip) < target.size
    target = np.minimum(np.maximum(target, -clip), clip)
  alpha_bars = closed_forms.vp_alpha_bars(config.num_denoising_steps)
  if config.langevin:
    target = 2 * target
    np.testing.assert_array_equal(noisy_action, batch.action)
    np.testing.assert_array_equal(steps, 0)
    alpha_bars = np.zeros(1)
  if config.score_target == "boltzmann":
    target = np.sqrt(1 - alpha_bars[steps])[:, None] * (noisy_action + target)

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    prediction = networks.denoise(
      params, batch.observation, noisy_action, jnp.asarray(steps)
    )
    return jnp.sum((prediction - target) ** 2) / (8 * 2)

  value, gradient = loss(params)
  np.testing.assert_allclose(metrics["denoiser_loss"], value, rtol=1e-4)
  jax.tree.map(
    lambda got, expected: np.testing.assert_allclose(
      got, expected, rtol=1e-3, atol=1e-5
    ),
    got_gradient,
    gradient,
  )


def test_noisy_actions_have_the_schedules_moments(
  config, make_constant_networks, make_step, make_flat_batch
):
  # With constant predictions and gradients, the denoiser's gradient tells the
  # mean noisy action of each denoising step, and how often each is drawn:
  # E[2 / (A T) (w - sqrt(1 - abar_t) (sqrt(abar_t) a - kappa c))].
  size, action, c = 100_000, 0.6, 0.4
  config = dataclasses.replace(
    config, normalize_action_gradient=False, critic_learning_rate=1e-12
  )
  step = make_step(make_constant_networks([[c]], [0.0]), config)
  gradient, _, _ = step(make_flat_batch(size, action=action))
  alpha_bars = closed_forms.vp_alpha_bars(3)
  target = np.sqrt(1 - alpha_bars) * (np.sqrt(alpha_bars) * action - 10.0 * c)
  # Each is the mean over the batch of a term below 2 * 5 that is there for a
  # third of it: five standard errors of at most 10 sqrt(1 / 3).
  np.testing.assert_allclose(
    gradient[:, 0],
    2 / 3 * (0.3 - target),
    atol=5 * 10 * np.sqrt(1 / 3 / size),
  )


def test_normalising_makes_the_scale_of_q_irrelevant(
  config, make_batch, make_constant_networks, make_step
):
  # Critics a thousand times as steep, the same update of the denoiser.
  config = dataclasses.replace(config, critic_learning_rate=1e-12)
  slopes = np.array([[0.1, -0.2], [0.3, 0.4]])
  step, batch = (
    make_step(make_constant_networks(slopes), config),
    make_batch(0, 8),
  )

  def update(factor):
    params = {"b": jnp.zeros(2), "c": jnp.asarray(factor * slopes, jnp.float32)}
    return step(batch, critic_params=params)

  np.testing.assert_allclose(update(1.0)[0], update(1e3)[0], rtol=1e-4)
  _, metrics, after = update(0.0)
  assert metrics["action_gradient_size"] < 1e-9
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(metrics))
  assert jnp.isfinite(after.policy_params).all()


def test_action_gradient_size_is_a_debiased_running_mean(
  config, make_batch, make_constant_networks
):
  config = dataclasses.replace(
    config, critic_learning_rate=0.1, action_gradient_decay=0.9
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[0.1, -0.2], [0.3, 0.4]]), config
  )
  step = jax.jit(core.step)
  state, squares = core.init(jax.random.key(0)), []
  for i in range(3):
    state, metrics = step(state, make_batch(i, 8))
    gradient = np.mean(state.critic_params["c"], axis=0)
    squares.append(np.mean(gradient**2))
    # Weights 0.9^age, which add up to one once divided by their sum.
    weights = 0.9 ** np.arange(i + 1)[::-1]
    np.testing.assert_allclose(
      metrics["action_gradient_size"],
      np.sqrt(np.average(squares, weights=weights)),
      rtol=1e-5,
    )
  assert squares[0] != squares[1]


def test_langevin_dynamics_of_the_denoiser_at_step_0(
  config, make_constant_networks
):
  # Without noise, and from 0: a + (1 - k / K) / 2 * score, K = 4.
  config = dataclasses.replace(
    config,
    num_denoising_steps=4,
    langevin=True,
    exploration_noise=0.0,
    sampling_temperature=0.0,
    sampling_start_scale=0.0,
  )
  networks = dataclasses.replace(
    make_constant_networks([[0.0]], [0.0]),
    num_denoising_steps=4,
    denoise=lambda params, observation, action, step: jnp.where(
      step == 0, 2.0 * action - params, jnp.nan
    ),
  )
  policy = acme_qsm.make_policy(networks, config)
  params = acme_qsm.PolicyParams(
    policy=jnp.array([[0.5], [3.0]]),
    target_policy=(),
    critics=(),
    steps=jnp.int32(1),
  )
  action = np.zeros((2, 1))
  for size in (1.0, 0.75, 0.5, 0.25):
    score = np.array([[0.5], [3.0]]) - 2.0 * action
    action = np.clip(action + size / 2 * score, -1, 1)
  # The first is near where the score is 0, the second held by the box.
  assert np.abs(action[0] - 0.25) < 0.01
  assert action[1] == 1.0
  np.testing.assert_allclose(
    policy(params, jax.random.key(0), jnp.zeros((2, 1))), action, rtol=1e-6
  )
  with pytest.raises(ValueError, match="made for 4 denoising steps"):
    acme_qsm.make_policy(
      networks, dataclasses.replace(config, num_denoising_steps=5)
    )


@pytest.mark.parametrize(
  ("score_target", "mean", "variance"),
  [
    # exp(2 kappa Q), and the same times N(0, 1), of Q = -(a - m)^2 / 2.
    ("action_gradient", 0.1, 1 / 12),
    ("boltzmann", 12 * 0.1 / 13, 1 / 13),
  ],
)
def test_langevin_dynamics_draw_what_the_reverse_process_does(
  make_constant_networks, make_flat_batch, score_target, mean, variance
):
  # See test_boltzmann_target_samples_the_density_of_twice_kappa.
  kappa, goal, size = 6.0, 0.1, 20_000
  config = acme_qsm.QSMConfig(
    num_denoising_steps=400,
    langevin=True,
    score_target=score_target,
    q_score_scale=kappa,
    action_gradient_clip=None,
    exploration_noise=0.0,
  )
  networks = dataclasses.replace(
    make_constant_networks([[0.0]], [0.0]),
    num_denoising_steps=400,
    q_values=lambda params, observation, action: -0.5 * (action - goal).T ** 2,
    denoise=lambda params, observation, action, step: (
      params[0] * action + params[1]
    ),
  )
  batch = make_flat_batch(256)
  batch = batch._replace(
    action=jnp.linspace(-1, 1, 256)[:, None].astype(jnp.float32)
  )
  policy_loss = qsm.make_policy_loss(networks, config)

  def loss(params):
    context = Context((), (), (), batch.action, jnp.int32(0))
    value, _ = policy_loss(
      params,
      qsm.QSMState(jnp.zeros(())),
      batch,
      jax.random.split(jax.random.key(0)),
      context,
    )
    return value

  # Quadratic in a linear denoiser's parameters.
  start = jnp.zeros(2)
  params = -jnp.linalg.solve(jax.hessian(loss)(start), jax.grad(loss)(start))
  actions = jax.jit(qsm.make_sampler(networks, config))(
    params, jax.random.key(1), jnp.zeros((size, 1))
  )
  # Five standard errors, and what is left of the steps' size: they fall to 1 /
  # 400, which is small beside the variance.
  np.testing.assert_allclose(
    jnp.mean(actions), mean, atol=5 * np.sqrt(variance / size)
  )
  np.testing.assert_allclose(
    jnp.var(actions), variance, rtol=5 * np.sqrt(2 / size) + 0.04
  )
