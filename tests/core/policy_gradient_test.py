"""The policy gradient's loss; of a whole chain see chains_test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import losses

LOG_PROB = jnp.asarray([[-1.0, 2.0, 0.5], [0.3, -0.2, -4.0]])
ADVANTAGE = jnp.asarray([2.0, -0.5])


def test_values():
  got = losses.diffusion_policy_gradient_loss(LOG_PROB, ADVANTAGE)
  np.testing.assert_allclose(got, [-3.0, -1.95], rtol=1e-6)


def test_gradients():
  gradients = jax.grad(
    lambda *args: jnp.sum(losses.diffusion_policy_gradient_loss(*args)),
    argnums=(0, 1),
  )(LOG_PROB, ADVANTAGE)
  np.testing.assert_array_equal(gradients[0], [[-2.0] * 3, [0.5] * 3])
  np.testing.assert_array_equal(gradients[1], [0.0, 0.0])


def test_matching_shapes_are_wanted():
  with pytest.raises(AssertionError):
    losses.diffusion_policy_gradient_loss(LOG_PROB, ADVANTAGE[:1])
  with pytest.raises(AssertionError):
    losses.diffusion_policy_gradient_loss(LOG_PROB[0], ADVANTAGE)
