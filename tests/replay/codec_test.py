"""Packing and unpacking, with JAX alone."""

import collections

import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import types
from acme_qsm.replay.codec import TransitionCodec

ArraySpec = collections.namedtuple("ArraySpec", ("shape", "dtype"))
EnvironmentSpec = collections.namedtuple(
  "EnvironmentSpec", ("observations", "actions")
)


def make_codec(observation_shape, num_actions, dtype=np.float32):
  return TransitionCodec(
    EnvironmentSpec(
      ArraySpec(observation_shape, dtype), ArraySpec((num_actions,), np.float32)
    )
  )


def test_unpacking_undoes_packing():
  codec = make_codec((2, 3), 4)
  rng = np.random.default_rng(0)
  transitions = [
    types.Transition(
      observation=rng.normal(size=(2, 3)).astype(np.float32),
      action=rng.normal(size=4).astype(np.float32),
      reward=np.float32(rng.normal()),
      discount=np.float32(rng.normal()),
      next_observation=rng.normal(size=(2, 3)).astype(np.float32),
    )
    for _ in range(5)
  ]
  packed = np.stack([codec.pack(transition) for transition in transitions])
  assert packed.dtype == np.float32
  assert packed.shape == (5, codec.size) == (5, 18)
  unpacked = codec.unpack(jnp.asarray(packed))
  for name in types.Transition._fields:
    np.testing.assert_array_equal(
      getattr(unpacked, name),
      np.stack([getattr(transition, name) for transition in transitions]),
      err_msg=name,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_observations_that_replay_cannot_hold_are_refused(dtype):
  with pytest.raises(ValueError, match=f"float32.*{np.dtype(dtype)}"):
    make_codec((2,), 1, dtype)
