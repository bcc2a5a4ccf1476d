"""Packing and unpacking, with JAX alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import types
from acme_qsm.replay.codec import TransitionCodec

EXTRAS_SPEC = {"mean": types.ArraySpec((3,)), "log_prob": types.ArraySpec(())}


def make_codec(extras_spec, dtype=np.float32):
  spec = types.EnvironmentSpec(
    types.ArraySpec((2, 3), dtype), types.ArraySpec((4,))
  )
  return TransitionCodec(spec, extras_spec)


def make_transition(random, extras_spec):
  return types.Transition(
    observation=random.normal(size=(2, 3)).astype(np.float32),
    action=random.normal(size=4).astype(np.float32),
    reward=np.float32(random.normal()),
    discount=np.float32(random.normal()),
    next_observation=random.normal(size=(2, 3)).astype(np.float32),
    extras={
      name: random.normal(size=spec.shape).astype(np.float32)
      for name, spec in extras_spec.items()
    },
  )


# What else extras can be, the adders' tests say.
@pytest.mark.parametrize("extras_spec", [{}, EXTRAS_SPEC])
def test_unpacking_undoes_packing(extras_spec):
  codec = make_codec(extras_spec)
  random = np.random.default_rng(0)
  transitions = [make_transition(random, extras_spec) for _ in range(5)]
  packed = np.stack([codec.pack(transition) for transition in transitions])
  assert packed.dtype == np.float32
  assert packed.shape == (5, codec.size) == (5, 22 if extras_spec else 18)
  unpacked = codec.unpack(jnp.asarray(packed))
  for name in types.Transition._fields[:5]:
    np.testing.assert_array_equal(
      getattr(unpacked, name),
      np.stack([getattr(transition, name) for transition in transitions]),
      err_msg=name,
    )
  if not extras_spec:
    assert unpacked.extras == ()
    return
  assert codec.describe_extras() == [
    "log_prob: float32 []",
    "mean: float32 [3]",
  ]
  for name in extras_spec:
    np.testing.assert_array_equal(
      unpacked.extras[name],
      np.stack([each.extras[name] for each in transitions]),
    )


@pytest.mark.parametrize(
  ("extras_spec", "extras", "message"),
  [
    ({}, {"log_prob": np.float32(0.5)}, r"\['log_prob'\] are not in its spec;"),
    (
      {},
      np.ones(4, np.float32),
      "Extras are of ndarray; they must be",
    ),
    ({}, np.float32(1.0), "Extras are of float32"),
    (EXTRAS_SPEC, (), r"\['log_prob', 'mean'\] are missing;"),
  ],
)
def test_extras_that_are_not_those_of_the_spec(extras_spec, extras, message):
  transition = make_transition(np.random.default_rng(0), {})
  with pytest.raises(ValueError, match=message):
    make_codec(extras_spec).pack(transition._replace(extras=extras))


def test_rows_of_other_extras_are_refused():
  with pytest.raises(ValueError, match="18 numbers instead of 22, with "):
    make_codec(EXTRAS_SPEC).unpack(jnp.zeros((5, 18)))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_observations_that_replay_cannot_hold_are_refused(dtype):
  with pytest.raises(ValueError, match=f"float32.*{np.dtype(dtype)}"):
    make_codec({}, dtype)


@pytest.mark.parametrize(
  "dtype", [np.float64, np.int64, np.uint32, np.complex64]
)
def test_extras_that_replay_cannot_hold_are_refused(dtype):
  with pytest.raises(ValueError, match=f"'count'.*int32.*{np.dtype(dtype)}"):
    make_codec({"count": types.ArraySpec((), dtype)})
