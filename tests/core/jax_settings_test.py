"""JAX's own settings, which are its user's: training goes on with each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import methods

SMALL = {
  "policy_hidden_sizes": (8,),
  "critic_hidden_sizes": (8,),
  "time_embedding_size": 4,
  "time_hidden_size": 4,
  "num_denoising_steps": 2,
  "num_action_candidates": 2,
  "num_evaluation_candidates": 1,
  # So many that the defaults' target_kl can be reached.
  "num_reverse_samples": 8,
  "num_policy_samples": 8,
  "batch_size": 8,
}


def train(name, environment_spec, batch, **more):
  """Makes two learner steps and chooses an action, compiled."""
  config_type = methods.METHODS[name].config
  fields = config_type.__dataclass_fields__
  config = config_type(
    **{key: SMALL[key] for key in SMALL if key in fields}, **more
  )
  networks = acme_qsm.make_networks(environment_spec, config)
  core = acme_qsm.make_learner_core(networks, config)
  policy = acme_qsm.make_policy(networks, config)

  @jax.jit
  def run():
    state, metrics = jax.lax.scan(
      lambda state, _: core.step(state, batch),
      core.init(jax.random.PRNGKey(0)),
      length=2,
    )
    params = core.policy_params(state)
    action = policy(params, jax.random.PRNGKey(1), jnp.zeros((1, 3)))
    return [*metrics.values(), action]

  return run()


@pytest.mark.parametrize(
  ("name", "more"),
  [*((name, {}) for name in methods.METHODS), ("qsm", {"langevin": True})],
)
def test_no_method_s_way_to_its_numbers_is_a_nan(
  name, more, environment_spec, make_batch
):
  """JAX stops at the first NaN, also at one that a `where` leaves out."""
  with jax.debug_nans(True):
    values = train(name, environment_spec, make_batch(0, 8), **more)
  assert all(np.all(np.isfinite(value)) for value in values)


def test_random_numbers_of_another_kind(environment_spec, make_batch):
  before = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
  jax.config.update("jax_default_prng_impl", "rbg")
  try:
    values = train("qsm", environment_spec, make_batch(0, 8))
  finally:
    jax.config.update("jax_default_prng_impl", before)
  assert all(np.all(np.isfinite(value)) for value in values)


def test_double_precision_is_the_callers(environment_spec, make_batch):
  """The core computes in what it is given, and leaves JAX as it is."""
  jax.config.update("jax_enable_x64", True)
  try:
    values = train("qsm", environment_spec, make_batch(0, 8))
    assert jnp.zeros(()).dtype == np.float64
  finally:
    jax.config.update("jax_enable_x64", False)
  assert all(np.all(np.isfinite(value)) for value in values)
