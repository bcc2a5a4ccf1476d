"""The theorems of Q-score matching, where Q is known (Psenka et al., 2024).

State and action flow together (their eq. 1):

  ds = F(s, a) dt + Sigma_s dB,   da = Psi(s, a) dt + Sigma_a dB,

Q^Psi(s, a) is the discounted integral of r(s(t)) from there on, and Psi, "the
score", is what is learnt. Their theorems say that it can be improved wherever
it is not alpha_{s,a} grad_a Q^Psi with a positive alpha. Here time goes by
small steps, and theorem numbers are those of the ICML text (4.1, 4.2, 4.3; in
the preprint theorem 1, corollary 1, theorem 2). A denoiser's eps is -Psi.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from acme_qsm import diffusion
from acme_qsm import losses

BOUND = 1.5  # C, the largest size of Psi.


def align(psi, action_gradient, scale):
  """Psi [B, A] moved to the loss's optimum along the loss's own gradient."""
  gradient = jax.grad(
    lambda e: jnp.sum(losses.q_score_matching_loss(e, action_gradient, scale))
  )(-psi)
  return psi + psi.shape[1] / 2 * gradient


def size(vectors):
  return jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_best_field_is_aligned_with_its_action_gradient():
  # Theorem 4.1, without noise, and corollary 4.2, off the trajectory too:
  # F = b . a and a reward that rises with s. Pushing along b as hard as is
  # allowed is best, since it makes s largest at every time, and
  #   Q*(s, a) = int exp(-t) r(s + t b . a + C t^2 / 2) dt.
  direction = jnp.asarray([0.6, -0.8])
  times = jnp.linspace(0.0, 20.0, 4_001)

  def q_value(state, action, cosine=1.0):
    # The cosine is of the angle between Psi and b.
    states = state + times * (action @ direction)
    states = states + BOUND * cosine * times**2 / 2
    return jnp.trapezoid(jnp.exp(-times) * jax.nn.sigmoid(states), times)

  # The trajectory from the origin, and anywhere.
  along = jnp.linspace(0.0, 3.0, 7)[:, None]
  states = jnp.concatenate(
    [BOUND * along[:, 0] ** 2 / 2, jnp.asarray([-2.0, 0.5])]
  )
  actions = jnp.concatenate(
    [BOUND * along * direction, jnp.asarray([[1.0, 1.0], [-0.7, 0.2]])]
  )
  gradient = jax.jit(jax.vmap(jax.grad(q_value, argnums=1)))(states, actions)
  scale = BOUND / size(gradient)
  value = jax.jit(lambda cosine: q_value(0.0, jnp.zeros(2), cosine))
  previous = -1.0
  for angle in (0.0, 0.5, 1.5, 3.0):
    turned = np.array(
      [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    psi = np.tile(BOUND * turned @ direction, (len(actions), 1))
    loss = losses.q_score_matching_loss(-psi, gradient, scale)
    # |Psi - C b|^2 / 2, by the law of cosines.
    expected = BOUND**2 * (1 - np.cos(angle))
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
    # The loss ranks the fields as their returns do.
    regret = float(value(1.0) - value(np.cos(angle)))
    assert regret > previous
    previous = regret


# A point that flows in the plane, and is rewarded near a goal.
STEP, NUM_STEPS = 0.02, 600
GOAL = jnp.asarray([1.0, 0.5])


def swirl(position, action):
  """A smooth field, bounded by C, that has nothing to do with the goal."""
  vector = jnp.stack(
    [
      0.4 + 0.5 * action[1] - 0.3 * position[0],
      -0.6 * action[0] + 0.2 * position[1] - 0.5,
    ]
  )
  return BOUND * vector / jnp.sqrt(1.0 + jnp.sum(vector**2))


def flow(field, position, action):
  """The discounted return, and the states and actions passed through."""

  def move(carry, step):
    position, action = carry
    reward = jnp.exp(-0.5 * jnp.sum((position - GOAL) ** 2))
    reward = STEP * jnp.exp(-STEP * step) * reward
    after = (
      position + STEP * (action - 0.3 * position),
      action + STEP * field(position, action),
    )
    return after, (reward, position, action)

  _, (rewards, positions, actions) = jax.lax.scan(
    move, (position, action), jnp.arange(NUM_STEPS)
  )
  return jnp.sum(rewards), positions, actions


@jax.jit
def flow_with_bump(center, target, sign):
  """Flows from the origin by `swirl` with a bump, and by what Q says of it.

  Psi is moved towards the target at the center, or as far the other way, in a
  small ball around it.

  Returns:
    The return, and the discounted sum of (Psi' - Psi) . grad_a Q^Psi on the
    way.
  """

  def bumped(position, action):
    squares = jnp.sum((position - center[0]) ** 2)
    squares = squares + jnp.sum((action - center[1]) ** 2)
    inside = jnp.maximum(0.0, 1.0 - squares / 0.3**2) ** 2
    psi = swirl(position, action)
    return psi + sign * inside * (target - psi)

  total, *way = flow(bumped, jnp.zeros(2), jnp.zeros(2))
  difference = jax.vmap(bumped)(*way) - jax.vmap(swirl)(*way)
  advantage = jnp.sum(difference * action_gradient(*way), axis=1)
  discount = STEP * jnp.exp(-STEP * jnp.arange(NUM_STEPS))
  return total, jnp.sum(discount * advantage)


@jax.jit
def action_gradient(positions, actions):
  """Of Q^Psi, the return of `swirl` from there: [N, 2]."""
  q_value = jax.grad(lambda *x: flow(swirl, *x)[0], argnums=1)
  return jax.vmap(q_value)(positions, actions)


def test_a_bump_towards_the_action_gradient_raises_the_return():
  # Theorem 4.1's proof, at the origin and "beyond" it: Psi is aligned, with its
  # size kept (eq. 38), around a point of its trajectory. By what Q says the
  # return rises, and falls if the bump is the other way.
  before, positions, actions = jax.jit(functools.partial(flow, swirl))(
    jnp.zeros(2), jnp.zeros(2)
  )
  for start in (0, 25):
    center = positions[start], actions[start]
    psi = swirl(*center)[None]
    gradient = action_gradient(*(x[None] for x in center))
    cosine = jnp.sum(psi * gradient) / size(psi) / size(gradient)
    assert jnp.abs(cosine) < 0.9
    target = align(psi, gradient, size(psi) / size(gradient))[0]
    np.testing.assert_allclose(
      target, (size(psi) / size(gradient) * gradient)[0], rtol=1e-4
    )
    for sign in (1.0, -1.0):
      after, expected = flow_with_bump(center, target, sign)
      # Of the order of the time step.
      assert float(after - before) == pytest.approx(float(expected), rel=0.05)
      assert sign * (after - before) > 0.003


# A linear system of a state and two actions x = (s, a_1, a_2), with noise on
# all: it stays normal, and so does the mean of a bell-shaped reward of s. The
# score is affine, Psi = theta (x, 1).
DRIFT = jnp.asarray([[-0.5, 0.6, -0.8, 0.0], [0.0] * 4, [0.0] * 4])
NOISE = np.array([0.2, 0.3, 0.3])
TICK, NUM_TICKS = 0.02, 300
WIDTH = 0.5


def moments(theta, mean, covariance):
  """Means [T, 3] and covariances [T, 3, 3] of x at each time."""
  matrix = DRIFT.at[1:].add(theta)

  def move(carry, _):
    mean, covariance = carry
    jacobian = jnp.eye(3) + TICK * matrix[:, :3]
    after = (
      mean + TICK * (matrix @ jnp.append(mean, 1.0)),
      jacobian @ covariance @ jacobian.T + TICK * jnp.diag(NOISE**2),
    )
    return after, carry

  return jax.lax.scan(move, (mean, covariance), length=NUM_TICKS)[1]


def discounts():
  return TICK * jnp.exp(-TICK * jnp.arange(NUM_TICKS))


def expected_return(theta, mean, covariance):
  """J where the start is N(mean, covariance), Q(x) where that is a point x."""
  means, covariances = moments(theta, mean, covariance)
  variance = covariances[:, 0, 0] + WIDTH**2
  rewards = jnp.exp(-((means[:, 0] - 1.0) ** 2) / (2 * variance))
  return jnp.sum(discounts() * WIDTH / jnp.sqrt(variance) * rewards)


START = jnp.zeros(3), jnp.diag(jnp.asarray([0.3, 0.2, 0.2]))


def visit(theta):
  """Points x [N, 3] of the discounted visits from START, and their weights."""
  roots, weights = np.polynomial.hermite_e.hermegauss(4)
  grid = np.stack(np.meshgrid(roots, roots, roots), -1).reshape(-1, 3)
  mass = np.prod(np.meshgrid(weights, weights, weights), axis=0).ravel()
  means, covariances = moments(theta, *START)
  factors = jnp.linalg.cholesky(covariances)
  points = means[:, None] + jnp.einsum("tij,nj->tni", factors, grid)
  weights = discounts()[:, None] * (mass / mass.sum())
  return points.reshape(-1, 3), weights.ravel()


@jax.jit
def matching_gradient(theta, scale):
  """Gradient in theta of the loss over what the policy visits."""
  points, weights = visit(theta)
  # Q is not differentiated one point at a time: its mean is linear in x.
  _, covariances = moments(theta, jnp.zeros(3), jnp.zeros((3, 3)))
  slopes = jax.jacobian(lambda x: moments(theta, x, jnp.eye(3))[0][:, 0])(
    jnp.zeros(3)
  )
  offsets = moments(theta, jnp.zeros(3), jnp.eye(3))[0][:, 0]
  variance = covariances[:, 0, 0] + WIDTH**2
  distance = points @ slopes.T + offsets - 1.0
  rewards = WIDTH / jnp.sqrt(variance) * jnp.exp(-(distance**2) / 2 / variance)
  action_gradient = (-discounts() * rewards * distance / variance) @ slopes[
    :, 1:
  ]

  def loss(theta):
    inputs = jnp.concatenate([points, jnp.ones((points.shape[0], 1))], axis=1)
    each = losses.q_score_matching_loss(
      -inputs @ theta.T, action_gradient, scale
    )
    return jnp.sum(weights * each)

  return jax.grad(loss)(theta)


def some_theta():
  rng = np.random.default_rng(0)
  theta = 0.3 * rng.normal(size=(2, 4))
  theta[:, 1:3] -= np.eye(2)
  return jnp.asarray(theta, jnp.float32)


def test_the_loss_s_gradient_is_the_return_s():
  # Theorem 4.3, with noise on states and actions: "the functional gradient
  # with respect to the underlying score model is proportional to the action
  # gradient". So what alpha adds to the loss's gradient, over the discounted
  # visits, is -2 alpha / A times the return's, here of its closed form.
  theta = some_theta()
  expected = jax.jit(jax.grad(expected_return))(theta, *START)
  without = matching_gradient(theta, 0.0)
  for alpha in (0.5, 20.0):
    np.testing.assert_allclose(
      -(matching_gradient(theta, alpha) - without) * 2 / (2 * alpha),
      expected,
      # Of the order of the time step, of the largest entry.
      atol=0.05 * float(jnp.abs(expected).max()),
    )


def test_matching_raises_the_return_step_by_step():
  # Theorem 4.3 as an algorithm: Q^Psi, a small step on the loss, and again. The
  # same steps with -alpha lower the return.
  rise = jax.jit(expected_return)
  for alpha, sign in ((4.0, 1.0), (-4.0, -1.0)):
    theta = np.zeros((2, 4), np.float32)
    returns = [rise(theta, *START)]
    for _ in range(6):
      theta = theta - 0.3 * np.asarray(matching_gradient(theta, alpha))
      returns.append(rise(theta, *START))
    assert np.all(sign * np.diff(returns) > 1e-4), returns


# Regulation of a linear system in discrete time, s' = TRANSITION s + CONTROL a
# + noise, at the cost |s|^2 + |a|^2 / 2: under every policy that is linear with
# normal noise, Q is quadratic.
TRANSITION = np.array([[0.95, 0.3], [-0.2, 1.0]])
CONTROL = np.array([[0.2, 0.0], [0.1, 0.5]])
DISCOUNT, ACTION_COST, DISTURBANCE = 0.9, 0.5, 0.1
ALPHA = 3.0


def policy_of(score_matrix, step_size=0.0):
  """Gain and covariance of what Langevin dynamics of that step size draw.

  Their score is score_matrix (s, a); the covariance is that of the linear
  recursion where it has settled.
  """
  precision = -score_matrix[:, 2:]
  gain = np.linalg.solve(precision, score_matrix[:, :2])
  return gain, np.linalg.inv(precision - step_size / 4 * precision @ precision)


def evaluate(gain, covariance):
  """M of Q(s, a) = -(s, a) M (s, a) + constant, and J from s ~ N(0, I).

  J comes in two parts: what the gain makes, and what the actions' noise does.
  """
  closed = np.sqrt(DISCOUNT) * (TRANSITION + CONTROL @ gain)
  value = scipy.linalg.solve_discrete_lyapunov(
    closed.T, np.eye(2) + ACTION_COST * gain.T @ gain
  )
  both = np.concatenate([TRANSITION, CONTROL], axis=1)
  matrix = DISCOUNT * both.T @ value @ both
  matrix += np.diag([1.0, 1.0, ACTION_COST, ACTION_COST])
  by_noise = np.trace(matrix[2:, 2:] @ covariance) / (1 - DISCOUNT)
  return matrix, (by_gain(value), -by_noise)


def by_gain(value):
  """J without noise on actions, where s is worth -s value s."""
  disturbed = DISCOUNT * DISTURBANCE**2 / (1 - DISCOUNT)
  return -(1 + disturbed) * np.trace(value)


@jax.jit
def match(action_gradient_matrix):
  """The linear score that the library's loss is least at."""
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(size=(64, 4)), jnp.float32)

  def loss(score_matrix):
    return jnp.mean(
      losses.q_score_matching_loss(
        -inputs @ score_matrix.reshape(2, 4).T,
        inputs @ action_gradient_matrix.T,
        ALPHA,
      )
    )

  zeros = jnp.zeros(8)
  solution = -jnp.linalg.solve(jax.hessian(loss)(zeros), jax.grad(loss)(zeros))
  return solution.reshape(2, 4)


@pytest.fixture(scope="module")
def scores():
  """Six score matrices of Q-score matching, from a policy of noise alone."""
  scores = [np.concatenate([np.zeros((2, 2)), -4.0 * np.eye(2)], axis=1)]
  while len(scores) < 6:
    matrix, _ = evaluate(*policy_of(scores[-1]))
    # grad_a Q = -2 M_a (s, a).
    matched = match(np.asarray(-2.0 * matrix[2:], np.float32))
    scores.append(np.asarray(matched, np.float64))
  return scores


def test_q_score_matching_solves_linear_quadratic_regulation(scores):
  # Theorem 4.3 in the form that the method has it: their eq. 6, with as many
  # action steps as it takes to settle. The policy with the score alpha grad_a
  # Q^pi is exp(alpha Q^pi) / Z, so that matching is a step of policy iteration.
  policies = [policy_of(score) for score in scores]
  # At any fixed noise on actions, as in the theorem, the return rises.
  fixed = [np.sum(evaluate(gain, 0.2 * np.eye(2))[1]) for gain, _ in policies]
  assert np.all(np.diff(fixed)[:3] > 1e-3)
  # In the end, rounding of single precision.
  assert np.all(np.diff(fixed) > -1e-4)
  # The policy's own noise widens as Q gets flatter, up to where an entry costs
  # 1 / (2 alpha) at each step: it takes back some of the later gains.
  returns = [evaluate(*policy)[1] for policy in policies]
  assert np.sum(returns[2]) > np.sum(returns[1]) > np.sum(returns[0])
  assert returns[-1][1] == pytest.approx(
    -2 / (2 * ALPHA * (1 - DISCOUNT)), rel=1e-3
  )
  # The optimum, by the Riccati equation.
  root = np.sqrt(DISCOUNT)
  riccati = scipy.linalg.solve_discrete_are(
    root * TRANSITION, root * CONTROL, np.eye(2), ACTION_COST * np.eye(2)
  )
  assert returns[-1][0] == pytest.approx(by_gain(riccati), abs=1e-3)
  optimal_gain = -DISCOUNT * np.linalg.solve(
    ACTION_COST * np.eye(2) + DISCOUNT * CONTROL.T @ riccati @ CONTROL,
    CONTROL.T @ riccati @ TRANSITION,
  )
  np.testing.assert_allclose(policies[-1][0], optimal_gain, atol=2e-3)


def test_rollouts_of_the_langevin_sampler_have_those_returns(scores):
  # By acting: each action is drawn by Langevin dynamics with the matched score.
  num_episodes, num_steps = 2_000, 50

  @jax.jit
  def rollout(score_matrix, step_size):
    def act(state, keys):
      action = diffusion.sample_langevin(
        keys[0],
        lambda action: jnp.concatenate([state, action], 1) @ score_matrix.T,
        jnp.full((16,), step_size),
        (num_episodes, 2),
        clip=None,
      )
      reward = -jnp.sum(state**2, 1) - ACTION_COST * jnp.sum(action**2, 1)
      noise = DISTURBANCE * jax.random.normal(keys[1], state.shape)
      return state @ TRANSITION.T + action @ CONTROL.T + noise, reward

    keys = jax.random.split(jax.random.key(1), (num_steps, 2))
    start = jax.random.normal(jax.random.key(0), (num_episodes, 2))
    _, rewards = jax.lax.scan(act, start, keys)
    return DISCOUNT ** jnp.arange(num_steps) @ rewards

  # Not the second: one of its entries is five times as steep as the other, and
  # takes long to settle.
  for score_matrix in (scores[0], scores[2], scores[5]):
    step_size = 1.0 / np.linalg.eigvalsh(-score_matrix[:, 2:]).max()
    drawn = np.asarray(
      rollout(jnp.asarray(score_matrix, jnp.float32), step_size)
    )
    expected = np.sum(evaluate(*policy_of(score_matrix, step_size))[1])
    # Five standard errors, and 1 % for 0.9^50 and the dynamics' start.
    tolerance = 5 * np.std(drawn) / np.sqrt(num_episodes) - 0.01 * expected
    assert np.mean(drawn) == pytest.approx(expected, abs=tolerance)
