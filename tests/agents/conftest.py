"""Fixtures of the Acme parts' tests: a small configuration and spec, Reverb."""

import acme_qsm.acme_compat  # isort: skip

import jax
import numpy as np
import pytest
import reverb
from acme import specs

import acme_qsm


@pytest.fixture(autouse=True, scope="package")
def _compile_quickly():
  """Almost all the time of these tests is the compiler's: halve it."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def make_config():
  """Makes small configurations, all said except for the fields given."""

  def make(**fields):
    return acme_qsm.QSMConfig(
      **{
        "policy_hidden_sizes": (16,),
        "critic_hidden_sizes": (16,),
        "time_embedding_size": 4,
        "time_hidden_size": 8,
        "num_denoising_steps": 2,
        "num_action_candidates": 1,
        "num_evaluation_candidates": 1,
        "batch_size": 8,
        "min_replay_size": 16,
        "samples_per_insert": 8.0,
        "samples_per_insert_tolerance": 0.1,
        "n_step": 3,
        "discount": 0.5,
        "variable_update_period": 1,
        **fields,
      }
    )

  return make


@pytest.fixture(scope="session")
def make_spec():
  """Makes Acme's environment specs, valid except for the specs given."""

  def make(observations=None, actions=None):
    return specs.EnvironmentSpec(
      observations=observations or specs.Array((2,), np.float32),
      actions=actions or specs.BoundedArray((1,), np.float32, -1.0, 1.0),
      rewards=specs.Array((), np.float32),
      discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
    )

  return make


@pytest.fixture
def serve():
  """Serves tables until the test ends; returns a client."""
  servers = []

  def start(*tables):
    server = reverb.Server(list(tables), port=None)
    servers.append(server)
    return reverb.Client(f"localhost:{server.port}")

  yield start
  for server in servers:
    server.stop()
