"""Fixtures of the core's tests: small specs, networks and batches."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_qsm

# Almost all the time of these tests is the compiler's: this halves it.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def optimized():
  """Compiles within it what takes longer to run than to compile."""

  @contextlib.contextmanager
  def switch():
    jax.config.update("jax_disable_most_optimizations", False)
    try:
      yield
    finally:
      jax.config.update("jax_disable_most_optimizations", True)

  return switch


@pytest.fixture(scope="session")
def make_spec():
  """Makes specs, valid except for the fields given."""

  def make(observation=None, **action):
    return acme_qsm.EnvironmentSpec(
      observation or acme_qsm.ArraySpec((3,)),
      acme_qsm.ArraySpec(
        **{"shape": (2,), "minimum": -1.0, "maximum": 1.0, **action}
      ),
    )

  return make


@pytest.fixture(scope="session")
def environment_spec(make_spec):
  return make_spec()


@pytest.fixture(scope="session")
def config():
  """Small networks, and what tests lean on said, whatever the defaults."""
  return acme_qsm.QSMConfig(
    policy_hidden_sizes=(16,),
    critic_hidden_sizes=(16,),
    time_embedding_size=4,
    time_hidden_size=8,
    num_denoising_steps=3,
    score_target="boltzmann",
    q_score_scale=10.0,
    normalize_action_gradient=True,
    action_gradient_clip=None,
    num_action_candidates=1,
    num_evaluation_candidates=1,
    batch_size=8,
  )


@pytest.fixture(scope="session")
def networks(environment_spec, config):
  return compile_networks(acme_qsm.make_networks(environment_spec, config))


def compile_networks(networks):
  """The same, each function compiled as a whole instead of by operation."""
  names = ("init_denoiser", "denoise", "init_critics", "q_values")
  return dataclasses.replace(
    networks, **{name: jax.jit(getattr(networks, name)) for name in names}
  )


@pytest.fixture
def make_batch():
  """Makes random transitions for `environment_spec`, with leading axes."""

  def make(seed, *leading_axes):
    rng = np.random.default_rng(seed)

    def normal(*shape):
      return rng.normal(size=(*leading_axes, *shape)).astype(np.float32)

    return jax.tree.map(
      jax.numpy.asarray,
      acme_qsm.Transition(
        observation=normal(3),
        action=np.tanh(normal(2)),
        reward=normal(),
        discount=rng.integers(0, 2, leading_axes).astype(np.float32),
        next_observation=normal(3),
      ),
    )

  return make


@pytest.fixture(scope="session")
def make_flat_batch():
  """Makes transitions of zeros but for what is given, all alike."""

  def make(size, action=0.0, discount=0.0):
    return acme_qsm.Transition(
      observation=jnp.zeros((size, 1)),
      action=jnp.full((size, 1), action),
      reward=jnp.zeros((size,)),
      discount=jnp.full((size,), discount),
      next_observation=jnp.zeros((size, 1)),
    )

  return make


@pytest.fixture(scope="session")
def make_recording_config():
  """Makes a configuration's type, and the set of the fields read of it."""

  def make(config_type):
    read = set()

    @dataclasses.dataclass(frozen=True, repr=False)
    class Recording(config_type):
      def __getattribute__(self, name):
        read.add(name)
        return super().__getattribute__(name)

      def __repr__(self):
        # Haiku writes down what its modules are made with.
        return "Recording()"

    return Recording, read

  return make


@pytest.fixture(scope="session")
def first_gradient():
  """Tells what Adam was given at its first step."""
  return _first_gradient


def _first_gradient(opt_state):
  # Its mean is (1 - 0.9) of that.
  return jax.tree.map(
    lambda x: np.asarray(x) / 0.1, optax.tree_utils.tree_get(opt_state, "mu")
  )


@pytest.fixture(scope="session")
def make_step():
  """Makes a learner's first step, compiled once for all batches of a size.

  It takes transitions, and fields of the state where they are not what `init`
  makes them; it returns the policy's gradient, the metrics, the next state.
  """

  def make(networks, config):
    core = acme_qsm.make_learner_core(networks, config)
    step = jax.jit(core.step)
    start = core.init(jax.random.key(0))

    def make_first_step(batch, **fields):
      after, metrics = step(start._replace(**fields), batch)
      return _first_gradient(after.policy_opt_state), metrics, after

    return make_first_step

  return make


@pytest.fixture(scope="session")
def make_constant_networks():
  """Makes networks whose updates can be worked out on paper."""
  return _make_constant_networks


def _make_constant_networks(critic_gradients, values=(0.0, 0.0), num_steps=3):
  """Networks whose updates can be worked out on paper.

  The denoiser predicts a vector per denoising step, whatever the action; critic
  i's value is b_i + c_i . a.

  Args:
    critic_gradients: [N, A] the c_i.
    values: [N] the b_i.
    num_steps: denoising steps.
  """
  critic_gradients = jnp.asarray(critic_gradients, jnp.float32)
  action_size = critic_gradients.shape[1]
  return acme_qsm.DiffusionNetworks(
    init_denoiser=lambda key: jnp.full((num_steps, action_size), 0.3),
    denoise=lambda params, o, a, t: jnp.broadcast_to(params[t], a.shape),
    init_critics=lambda key: {
      "b": jnp.asarray(values, jnp.float32),
      "c": critic_gradients,
    },
    q_values=lambda params, o, a: params["b"][:, None] + params["c"] @ a.T,
    action_size=action_size,
  )
