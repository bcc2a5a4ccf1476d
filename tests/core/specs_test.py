"""Environments that the library cannot act in."""

import numpy as np
import pytest

import acme_qsm
from acme_qsm import specs


def test_a_valid_spec_passes(environment_spec):
  specs.validate_environment_spec(environment_spec)


@pytest.mark.parametrize(
  ("action", "message"),
  [
    ({"dtype": np.int32}, "actions must be continuous.*discrete"),
    ({"minimum": None, "maximum": None}, "actions.*unbounded"),
    ({"maximum": np.inf}, "actions.*infinite bounds.*inf"),
    ({"minimum": [-1.0, -np.inf]}, "actions.*infinite bounds.*-inf"),
    ({"minimum": np.nan}, "actions.*infinite bounds.*nan"),
    ({"minimum": -2.0}, r"actions must be scaled to \[-1, 1\].*-2\.0"),
    ({"maximum": [1.0, 0.5]}, r"actions must be scaled to \[-1, 1\].*0\.5"),
    ({"minimum": 1.0}, r"actions must have minimum < maximum.*1\.0"),
    (
      {"minimum": [-1.0, 1.0], "maximum": [1.0, -1.0]},
      "actions must have minimum < maximum",
    ),
    ({"dtype": np.float64}, "actions must be in single precision.*float64"),
    ({"shape": (2, 3)}, r"actions must be a vector.*\(2, 3\)"),
    ({"shape": ()}, r"actions must be a vector.*\(\)"),
    ({"shape": (0,)}, r"actions must be a vector.*\(0,\)"),
  ],
)
def test_invalid_actions(make_spec, action, message):
  with pytest.raises(ValueError, match=message):
    specs.validate_environment_spec(make_spec(**action))


@pytest.mark.parametrize(
  ("observation", "action", "ours", "acmes"),
  [
    (None, {"minimum": -2.0}, "CanonicalActions", "CanonicalSpecWrapper"),
    (
      {"position": None},
      {},
      "FloatObservations",
      "ConcatObservationWrapper",
    ),
    (None, {"dtype": np.float64}, "SinglePrecision", "SinglePrecisionWrapper"),
  ],
)
def test_what_helps_is_named(make_spec, observation, action, ours, acmes):
  with pytest.raises(ValueError, match="wrap the environment") as error:
    specs.validate_environment_spec(make_spec(observation, **action))
  assert f"acme_qsm.environments.wrappers.{ours} " in str(error.value)
  assert f"acme.wrappers.{acmes}." in str(error.value)


class Unbounded:
  """As dm_env's Array: without any such attributes."""

  shape = (2,)
  dtype = np.float32


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"actions": Unbounded()}, r"actions.*unbounded"),
    ({"actions": {"arm": Unbounded()}}, "actions must be one bounded array"),
    (
      {"observations": {"position": Unbounded()}},
      r"observations.*dict.*ConcatObs",
    ),
  ],
)
def test_specs_of_other_types(environment_spec, change, message):
  with pytest.raises(ValueError, match=message):
    specs.validate_environment_spec(environment_spec._replace(**change))


@pytest.mark.parametrize(
  ("shape", "dtype", "message"),
  [
    ((3,), np.float64, "observations must be in single precision.*float64"),
    ((3,), np.int32, "observations must be floats.*int32"),
    ((4, 4), np.float32, r"observations must be vectors.*\(4, 4\)"),
    ((), np.float32, r"observations must be vectors.*\(\)"),
  ],
)
def test_invalid_observations(make_spec, shape, dtype, message):
  with pytest.raises(ValueError, match=message):
    specs.validate_environment_spec(make_spec(acme_qsm.ArraySpec(shape, dtype)))


@pytest.mark.parametrize(
  ("shape", "dtype"), [((4, 4, 3), np.uint8), ((), np.float32)]
)
def test_own_networks_may_take_other_observations(make_spec, shape, dtype):
  specs.validate_environment_spec(
    make_spec(acme_qsm.ArraySpec(shape, dtype)), flat_observation=False
  )
