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


def make_codec(observation_shape, num_actions, dtype=np.float32, **kwargs):
  return TransitionCodec(
    EnvironmentSpec(
      ArraySpec(observation_shape, dtype), ArraySpec((num_actions,), np.float32)
    ),
    **kwargs,
  )


@pytest.mark.parametrize("has_extras", [False, True])
@pytest.mark.parametrize(
  "extras",
  [
    np.ones(4, np.float32),
    np.float32(1.0),
    (np.ones(4, np.float32), np.ones(1, np.float32)),
    {"log_prob": np.float32(0.5)},
  ],
)
def test_extras_that_would_be_lost_are_refused(has_extras, extras):
  # The executed action would take their place, or they that of another row.
  codec = make_codec((2,), 4, has_extras=has_extras)
  transition = types.Transition(
    observation=np.zeros(2, np.float32),
    action=np.zeros(4, np.float32),
    reward=np.float32(0.0),
    discount=np.float32(1.0),
    next_observation=np.zeros(2, np.float32),
    extras=extras,
  )
  with pytest.raises(ValueError, match="extras have no place"):
    codec.pack(transition)
  for nothing in ((), None, {}, []):
    assert codec.pack(transition._replace(extras=nothing)).size == codec.size


@pytest.mark.parametrize("has_extras", [False, True])
def test_unpacking_undoes_packing(has_extras):
  codec = make_codec((2, 3), 4, has_extras=has_extras)
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
  assert packed.shape == (5, codec.size) == (5, 22 if has_extras else 18)
  unpacked = codec.unpack(jnp.asarray(packed))
  # Extras are the executed action at first, and a field of their own.
  if has_extras:
    np.testing.assert_array_equal(
      unpacked.extras["moved_action"], unpacked.action
    )
    packed[:, -4:] = 7.0
    changed = codec.unpack(jnp.asarray(packed))
    np.testing.assert_array_equal(changed.extras["moved_action"], 7.0)
    np.testing.assert_array_equal(changed.action, unpacked.action)
  else:
    assert unpacked.extras == ()
  for name in set(types.Transition._fields) - {"extras"}:
    np.testing.assert_array_equal(
      getattr(unpacked, name),
      np.stack([getattr(transition, name) for transition in transitions]),
      err_msg=name,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_observations_that_replay_cannot_hold_are_refused(dtype):
  with pytest.raises(ValueError, match=f"float32.*{np.dtype(dtype)}"):
    make_codec((2,), 1, dtype)
