"""The papers' toy problems, against closed forms, quadrature and known runs."""

import contextlib
import itertools
import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from acme_qsm import diffusion
from launchers import toys
from launchers.toy_problems import arguments
from launchers.toy_problems import boltzmann
from launchers.toy_problems import gridworld
from launchers.toy_problems import mixture
from launchers.toy_problems import modes

NUM_SAMPLES = 20_000


@contextlib.contextmanager
def optimized():
  """Unlike elsewhere in tests, training takes longer than to compile it."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


# The mixture.


def exact_mixture_noise(noisy_action, step):
  """The noised mixture's noise prediction: its covariance stays I."""
  alpha_bar = mixture.make_schedule().alpha_bars[step]
  means = jnp.sqrt(alpha_bar) * jnp.asarray(mixture.MEANS)
  offsets = means - noisy_action[:, None]
  share = jax.nn.softmax(
    jnp.log(jnp.asarray(mixture.WEIGHTS)) - 0.5 * jnp.sum(offsets**2, -1)
  )
  score = jnp.einsum("bk,bka->ba", share, offsets)
  return -jnp.sqrt(1.0 - alpha_bar) * score


def sample_exactly():
  return np.asarray(
    diffusion.sample_posterior(
      jax.random.key(1),
      exact_mixture_noise,
      mixture.make_schedule(),
      (NUM_SAMPLES, 2),
      clip=mixture.BOUND,
    )
  )


@pytest.mark.parametrize("bound", [None, mixture.BOUND])
def test_reverse_sampling_loss_is_least_at_the_noised_mixtures_noise(
  bound, monkeypatch
):
  # A prediction per step, at one noisy action: the loss is quadratic in it, so
  # that gradients at two points tell where it is least.
  noisy_action = jnp.array([0.8, 0.3])
  num_steps = mixture.make_schedule().num_steps
  monkeypatch.setattr(
    mixture,
    "make_denoiser",
    lambda: types.SimpleNamespace(apply=lambda params, a, t: params[t]),
  )
  loss = mixture.reverse_sampling_loss(
    lambda key: jnp.broadcast_to(noisy_action, (mixture.BATCH_SIZE, 2)), bound
  )

  @jax.jit
  def mean_gradients(key):
    keys = jax.random.split(key, 200)
    points = jnp.stack([jnp.zeros((num_steps, 2)), jnp.ones((num_steps, 2))])
    return jax.lax.map(
      lambda key: jax.vmap(jax.grad(loss), (0, None))(points, key), keys
    ).mean(axis=0)

  estimates = []
  for key in jax.random.split(jax.random.key(0), 10):
    at_zero, at_one = mean_gradients(key)
    estimates.append(-at_zero / (at_one - at_zero))
  # Steps of which reverse samples reach the modes; further on, next to none
  # does without a bound.
  steps = slice(2, 9)
  found = np.mean(estimates, axis=0)[steps]
  error = np.std(estimates, axis=0)[steps] / math.sqrt(len(estimates))
  expected = np.concatenate(
    [exact_mixture_noise(noisy_action[None], t) for t in range(num_steps)]
  )[steps]
  assert np.max(error) < 0.03
  # Five standard errors, which ten estimates tell to a quarter; the ratio's
  # own bias is below 0.01.
  np.testing.assert_array_less(np.abs(found - expected), 6 * error + 0.01)


def test_what_the_sampler_makes_of_the_exact_score():
  found = mixture.describe(sample_exactly())
  # Known of these noise levels, which end with nothing left of the action and
  # narrow each mode: so much is to be had of 0.8, 3 and 1. Three standard
  # errors of 20 000 samples are 0.008 and, of means and deviations, 0.03.
  assert found["weights"][0] == pytest.approx(0.831, abs=0.012)
  np.testing.assert_allclose(
    found["means"], [[2.94, 2.94], [-2.84, -2.84]], atol=0.05
  )
  np.testing.assert_allclose(found["deviations"], 0.84, atol=0.04)


def test_langevin_steps_keep_the_weights_of_where_they_start():
  found = mixture.describe(
    np.asarray(mixture.sample_langevin(jax.random.key(0), NUM_SAMPLES))
  )
  assert 0.52 < found["weights"][0] < 0.62
  # It is at the ridge between the modes, x + y = log(1 / 4) / 6, that the start
  # decides: x + y is N(0, 2). That is known to 0.003.
  ridge = math.log(0.2 / 0.8) / 6 / math.sqrt(2)
  share = 0.5 * math.erfc(ridge / math.sqrt(2))
  assert found["weights"][0] == pytest.approx(share, abs=0.02)
  np.testing.assert_allclose(
    found["means"], mixture.MEANS, atol=0.1, err_msg="modes"
  )


def test_the_modes_divergence():
  key = jax.random.key(0)
  truth = np.asarray(mixture.draw_mixture(key, NUM_SAMPLES))
  found = mixture.describe(truth)
  # Four standard errors of the share of 20 000 samples.
  assert found["weights"][0] == pytest.approx(0.8, abs=0.012)
  assert 0 <= found["kl"] < 2e-3
  # Each mode moved by 0.5: KL(N(m, I) | N(0, I)) = |m|^2 / 2.
  moved = mixture.describe(truth + np.array([0.5, 0.0]))
  assert moved["kl"] == pytest.approx(0.125, abs=0.02)
  # Equal weights: KL((1/2, 1/2) | (0.8, 0.2)) = log(0.5 / 0.4).
  sides = [truth[truth.sum(axis=1) > 0], truth[truth.sum(axis=1) < 0]]
  size = min(map(len, sides))
  equal = mixture.describe(np.concatenate([side[:size] for side in sides]))
  assert equal["kl"] == pytest.approx(math.log(0.5 / 0.4), abs=0.01)
  assert (
    mixture.describe(np.full((100, 2), 3.0) + truth[:100] * 1e-3)["kl"] is None
  )


def test_the_mixtures_density():
  # By hand, at a mode's mean: the other one is 72 away, squared.
  at_mode = float(mixture.log_density(jnp.array([3.0, 3.0])))
  assert at_mode == pytest.approx(math.log(0.8 / (2 * math.pi)), abs=1e-5)
  axis = np.linspace(-9, 9, 181)
  grid = np.stack(np.meshgrid(axis, axis), -1)
  mass = np.exp(mixture.log_density(grid)).sum() * (axis[1] - axis[0]) ** 2
  assert mass == pytest.approx(1.0, abs=1e-4)


def test_soon_both_modes_are_found_and_without_the_clip_samples_explode():
  with optimized():
    params = mixture.train("rssm_gaussian", seed=0, num_steps=1_000)
  found = mixture.describe(
    np.asarray(mixture.sample(params, jax.random.key(9), NUM_SAMPLES))
  )
  # A tenth of the training: seeds 0, 1 and 2 have had 0.64 to 0.80, means
  # within 0.5, and 0.965 to 0.978 near a mode.
  assert 0.5 < found["weights"][0] < 0.92
  np.testing.assert_allclose(found["means"], mixture.MEANS, atol=0.8)
  assert found["share_near"] > 0.93
  free = mixture.sample(params, jax.random.key(9), 1_000, clip=None)
  assert np.max(np.abs(free)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rssm_gaussian", "rssm_uniform"])
def test_reverse_sampling_recovers_the_modes_and_their_weights(method):
  langevin = mixture.describe(
    np.asarray(mixture.sample_langevin(jax.random.key(0), NUM_SAMPLES))
  )
  with optimized():
    params = mixture.train(method, seed=0, num_steps=10_000)
  found = mixture.describe(
    np.asarray(mixture.sample(params, jax.random.key(9), NUM_SAMPLES))
  )
  # Of seeds 0, 1 and 2: 0.72 to 0.88, with means within 0.39 and 0.983 to 0.994
  # near; how they spread is in launchers/README.md.
  weight = found["weights"][0]
  assert 0.70 <= weight <= 0.92
  assert abs(weight - 0.8) < abs(langevin["weights"][0] - 0.8)
  np.testing.assert_allclose(found["means"], mixture.MEANS, atol=0.6)
  assert found["share_near"] > 0.97


# The Boltzmann limit.


@pytest.mark.parametrize(
  ("alpha", "entropy", "outer_mass"),
  [
    (0, 0.693, 0.5),
    (1, 0.640, 0.61),
    (2, 0.507, 0.72),
    (5, 0.051, 0.89),
    (10, -0.367, 0.98),
    (20, -0.741, None),
  ],
)
def test_exact_densities(alpha, entropy, outer_mass):
  def weight(action):
    return math.exp(-4 * alpha * (action**2 - 0.49) ** 2)

  def integrate(function, low=-1.0, high=1.0):
    return scipy.integrate.quad(function, low, high, limit=200)[0]

  total = integrate(weight)
  # -E[log p] = log Z - alpha E[Q], without a logarithm of what is tiny.
  by_quadrature = math.log(total) + integrate(
    lambda action: 4 * alpha * (action**2 - 0.49) ** 2 * weight(action) / total
  )
  found = boltzmann.exact_density(alpha)
  assert found.entropy == pytest.approx(by_quadrature, abs=1e-4)
  assert found.entropy == pytest.approx(entropy, abs=1e-3)
  outer = 2 * integrate(weight, 0.5, 1.0) / total
  assert found.outer_mass == pytest.approx(outer, abs=1e-3)
  if outer_mass is not None:
    assert found.outer_mass == pytest.approx(outer_mass, abs=6e-3)
  edges = np.linspace(-1, 1, boltzmann.NUM_BINS + 1)
  np.testing.assert_allclose(
    found.masses,
    [
      integrate(weight, low, high) / total
      for low, high in itertools.pairwise(edges)
    ],
    atol=1e-6,
  )


def test_walls_reflect():
  points = jnp.array([0.3, 1.0, 1.2, 2.9, 3.0, 3.1, -1.2, -3.1, 5.2])
  expected = [0.3, 1.0, 0.8, -0.9, -1.0, -0.9, -0.8, 0.9, 0.8]
  np.testing.assert_allclose(boltzmann.fold(points), expected, atol=1e-6)


@pytest.mark.slow
def test_langevin_steps_draw_from_the_boltzmann_density():
  draw_actions = jax.jit(boltzmann.sample, static_argnums=(2, 3))
  entropies = []
  for alpha in (1.0, 2.0, 5.0, 10.0):
    actions = np.asarray(
      draw_actions(jax.random.key(0), alpha, 2_000, NUM_SAMPLES)
    )
    assert np.max(np.abs(actions)) <= 1
    found = boltzmann.sampled_density(actions)
    exact = boltzmann.exact_density(alpha)
    # Of 20 000 samples in 40 bins the histogram alone is about 0.018 off; the
    # rest is the step's size. Known: at most 0.05.
    assert boltzmann.total_variation(found, exact) < 0.08
    assert found.outer_mass == pytest.approx(exact.outer_mass, abs=0.03)
    entropies.append(found.entropy)
  assert np.all(np.diff(entropies) < 0)


# The gridworld.


def test_entropy_falls_with_alpha_to_that_of_ties():
  alphas = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
  numbers = gridworld.run(arguments.Gridworld(alphas=alphas)).numbers
  entropies = list(numbers["entropy"].values())
  np.testing.assert_allclose(
    entropies,
    [1.386, 1.380, 1.343, 1.203, 0.906, 0.602, 0.487, 0.472],
    atol=1e-3,
  )
  assert np.all(np.diff(entropies) < 0)
  # Two moves tie in 16 cells and in the goal.
  floor = 17 / 25 * math.log(2)
  assert numbers["entropy_floor"] == pytest.approx(floor, abs=1e-12)
  assert min(entropies) >= floor - 1e-6
  assert numbers["value_uniform"] == pytest.approx(0.400, abs=1e-3)
  assert numbers["value_after_one_update"]["2.0"] == pytest.approx(
    4.545, abs=1e-3
  )
  assert numbers["value"]["2.0"] == pytest.approx(6.172, abs=1e-3)
  assert numbers["value_greedy"] == pytest.approx(7.409, abs=1e-3)
  for alpha, value in numbers["value_after_one_update"].items():
    assert value > numbers["value_uniform"] or alpha == "0.0"


def test_ties_stay_ties_however_large_alpha_is():
  for alpha in (1e3, 1e17, 1e308):
    policy = gridworld.iterate(alpha, 200)[-1].policy
    assert gridworld.entropy(policy) == pytest.approx(
      17 / 25 * math.log(2), abs=1e-12
    )


def test_policies_are_evaluated_by_bellmans_equation():
  rng = np.random.default_rng(0)
  policy = rng.dirichlet(np.ones(4), gridworld.SIZE**2)
  found = gridworld.evaluate(policy)
  # By the rules, cell by cell: no use of the module's own tables.
  for row in range(5):
    for column in range(5):
      for move, (down, right) in enumerate([(0, -1), (0, 1), (-1, 0), (1, 0)]):
        next_row = min(max(row + down, 0), 4)
        next_column = min(max(column + right, 0), 4)
        reward = float((next_row, next_column) == (4, 4))
        value = found.values[5 * next_row + next_column]
        assert found.q_values[5 * row + column, move] == pytest.approx(
          reward + 0.9 * value
        )
  np.testing.assert_allclose(
    found.values, np.sum(policy * found.q_values, axis=1)
  )


# The modes.


@pytest.fixture(scope="module")
def trained():
  """Actions and relative errors of two bandits, trained as by default."""
  found = {}
  for name in ("quadratic", "bimodal"):
    bandit = modes.BANDITS[name]
    with optimized():
      params = modes.train(bandit, 0, 3_000)
    actions = modes.sample(
      bandit,
      lambda a, t, bandit=bandit, params=params: bandit.denoiser.apply(
        params, a, t
      ),
      jax.random.key(2),
      NUM_SAMPLES,
    )
    error = modes.relative_error(bandit, params, jax.random.key(3))
    found[name] = actions[:, 0], error
  return found


@pytest.mark.slow
def test_quadratic_is_learnt(trained):
  actions, error = trained["quadratic"]
  assert error < 0.02
  # What the sampler makes of the exact noise prediction, known by simulation.
  assert np.mean(actions) == pytest.approx(0.381, abs=0.02)
  assert np.std(actions) == pytest.approx(0.363, abs=0.02)


@pytest.mark.slow
def test_both_modes_are_found(trained):
  actions, _ = trained["bimodal"]
  # Half each by symmetry; what is learnt tilts it, a lost mode empties one.
  assert min(np.mean(actions < -0.5), np.mean(actions > 0.5)) >= 0.3


def test_losses_are_zero_at_the_exact_noise_predictions():
  for bandit in modes.BANDITS.values():
    action, step = modes.draw_noisy_actions(bandit, jax.random.key(0), 8)
    exact = bandit.exact_noise(action, step)
    np.testing.assert_allclose(bandit.loss(exact, action, step), 0, atol=1e-6)
    np.testing.assert_allclose(
      bandit.loss(exact + 0.5, action, step), 0.25, rtol=1e-3
    )
  # By hand: -50 dQ/da with dQ/da = -4 a (a^2 - 0.49).
  action, step = jnp.array([[0.5], [-1.2]]), jnp.array([0, 2])
  np.testing.assert_allclose(
    modes.BANDITS["bimodal"].exact_noise(action, step),
    200 * action * (action**2 - 0.49),
    rtol=1e-4,
  )


@pytest.mark.parametrize("name", ["pair", "corners"])
def test_exact_predictions_draw_from_the_limits_density(name):
  bandit = modes.BANDITS[name]
  centers = modes.PAIR if name == "pair" else modes.CORNERS
  actions = modes.sample(
    bandit, bandit.exact_noise, jax.random.key(1), NUM_SAMPLES
  )
  # Four standard errors of a share of 20 000 samples are at most 0.014.
  np.testing.assert_allclose(
    modes.mode_masses(actions), 1 / len(centers), atol=0.015
  )
  # exp(Q) N(0, I), as a sum over a grid; 20 steps are not yet many, and
  # narrow the modes; at 1 they are clipped.
  axis = np.linspace(-3, 3, 301)
  grid = np.stack(np.meshgrid(*[axis] * bandit.action_size), axis=-1)
  flat = grid.reshape(-1, bandit.action_size)
  weights = np.exp(jax.vmap(bandit.q_value)(jnp.asarray(flat)))
  weights = weights * np.exp(-0.5 * np.sum(flat**2, axis=-1))
  density = weights / weights.sum() / (axis[1] - axis[0]) ** bandit.action_size
  np.testing.assert_allclose(
    modes.exact_density(centers, flat), density, atol=1e-2 * density.max()
  )
  distance = np.abs(flat[:, 0])
  mean = np.average(distance, weights=weights)
  std = math.sqrt(np.average((distance - mean) ** 2, weights=weights))
  assert np.mean(np.abs(actions[:, 0])) == pytest.approx(mean, abs=0.03)
  assert np.std(np.abs(actions[:, 0])) == pytest.approx(std, abs=0.03)


# The command line.


@pytest.mark.parametrize(
  ("toy", "flags", "keys"),
  [
    ("mixture", ["--num_steps", "2"], {"exact", "methods", "fixed_large"}),
    (
      "boltzmann",
      ["--num_steps", "3", "--alphas", "0", "2.5"],
      {"total_variation", "entropy", "entropy_exact"},
    ),
    (
      "gridworld",
      ["--alphas", "0", "1", "2"],
      {"entropy", "entropy_floor", "value"},
    ),
    ("modes", ["--num_steps", "2"], {"bandits"}),
  ],
)
def test_a_toy_leaves_numbers_and_a_picture(toy, flags, keys, tmp_path, capsys):
  folder = tmp_path / "new" / toy
  if toy != "gridworld":
    flags = [*flags, "--num_samples", "1000", "--seed", "3"]
  assert toys.main([toy, *flags, "--workdir", str(folder)]) == 0

  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  text = (folder / "result.json").read_text()
  found = json.loads(text, parse_constant=refuse)
  assert found["toy"] == toy
  assert found["arguments"]["workdir"] == str(folder)
  assert keys <= set(found)
  if "--alphas" in flags:
    alphas = [str(alpha) for alpha in found["arguments"]["alphas"]]
    assert list(found["entropy"]) == alphas
  picture = (folder / f"{toy}.png").read_bytes()
  assert picture[:4] == b"\x89PNG"
  assert len(picture) > 10_000
  assert {path.name for path in folder.iterdir()} == {
    "result.json",
    f"{toy}.png",
  }
  assert str(folder / "result.json") in capsys.readouterr().out


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    ([], "Name a toy"),
    (["gridword"], "did you mean gridworld?"),
    (["xyz"], "one of ['mixture', 'boltzmann', 'gridworld', 'modes']"),
    (["gridworld", "--alphas"], "alphas must be one or more"),
    (["gridworld", "--alphas", "1", "-1"], "alphas must be one or more"),
    (["gridworld", "--alphas", "nan"], "alphas must be a tuple whose part 0"),
    (["gridworld", "--alphas", "inf"], "alphas must be a tuple whose part 0"),
    (["gridworld", "--num_updates", "0"], "num_updates must be positive"),
    (["boltzmann", "--alphas", "51"], "each from 0 to 50"),
    (["boltzmann", "--num_steps", "0"], "num_steps must be positive"),
    (["boltzmann", "--num_samples", "10"], "num_samples must be at least"),
    (["mixture", "--num_steps", "-5"], "num_steps must be positive"),
    (["mixture", "--seed", "-1"], "seed must be in [0, 2^32)"),
    (["modes", "--num_steps", "0"], "num_steps must be positive"),
    (["modes", "--workdir", "{file}"], "is not a folder"),
    (["modes", "--workdir", "{file}/below"], "cannot be made"),
  ],
)
def test_bad_arguments_are_named_in_one_line(
  argv, message, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  file = tmp_path / "file"
  file.touch()
  argv = [argument.replace("{file}", str(file)) for argument in argv]
  assert toys.main(argv) == 2
  printed = capsys.readouterr()
  assert printed.out == ""
  (line,) = printed.err.splitlines()
  assert line.startswith("Error: ")
  assert message in line
  assert list(tmp_path.iterdir()) == [file]


def test_json_has_no_number_that_is_not_finite():
  found = toys.make_json({"a": [1.0, float("nan")], "b": (float("inf"), "c")})
  assert found == {"a": [1.0, None], "b": [None, "c"]}
