"""Specs of environments, and whether the library can act in them."""

from typing import Any

import numpy as np

from acme_qsm import types

# As much of a value as errors show.
_LINE = 200


def make_environment_spec(environment: Any) -> types.EnvironmentSpec:
  """Asks an environment for its specs.

  Args:
    environment: a dm_env environment.

  Returns:
    All of its specs.
  """
  return types.EnvironmentSpec(
    observations=environment.observation_spec(),
    actions=environment.action_spec(),
    rewards=environment.reward_spec(),
    discounts=environment.discount_spec(),
  )


def validate_environment_spec(
  environment_spec: types.EnvironmentSpecLike, *, flat_observation: bool = True
) -> None:
  """Raises unless actions are a vector in [-1, 1] and observations an array.

  Args:
    environment_spec: the spec to check.
    flat_observation: whether observations must be vectors, as the default
      networks want them.

  Raises:
    ValueError: says which field is wrong, what it is and what it must be.
  """
  actions = environment_spec.actions
  observations = environment_spec.observations
  require_continuous("actions", actions)
  if len(actions.shape) != 1 or actions.shape[0] < 1:
    raise ValueError(
      f"actions must be a vector [A], got shape {tuple(actions.shape)}; "
      + wrap_in("FlatActions")
    )
  _require_unit_box(actions)
  if not is_array(observations):
    raise ValueError(
      f"observations must be one array, got {type(observations).__name__}; "
      + wrap_in("FloatObservations", "ConcatObservationWrapper")
    )
  require_single_precision("observations", observations)
  if flat_observation:
    if len(observations.shape) != 1 or observations.shape[0] < 1:
      raise ValueError(
        "observations must be vectors [O] for the default networks, got shape "
        f"{tuple(observations.shape)}; pass your own denoiser and critic."
      )
    if not np.issubdtype(observations.dtype, np.floating):
      raise ValueError(
        "observations must be floats for the default networks, got dtype "
        f"{np.dtype(observations.dtype)}; pass your own denoiser and critic."
      )


def is_array(spec: Any) -> bool:
  """Whether a spec is one of a single array, and not of several."""
  return hasattr(spec, "shape") and hasattr(spec, "dtype")


def require_continuous(name: str, spec: Any) -> None:
  """Raises ValueError unless a spec is of one array of floats."""
  if not is_array(spec):
    raise ValueError(
      f"{name} must be one bounded array of floats, got {in_a_line(spec)}."
    )
  if not np.issubdtype(spec.dtype, np.floating):
    is_discrete = np.dtype(spec.dtype).kind in "iub"
    kind = "a discrete spec" if is_discrete else "no numbers"
    raise ValueError(
      f"{name} must be continuous (floats between bounds), got "
      f"{kind}: {in_a_line(spec)}."
    )


def require_finite_bounds(name: str, spec: Any) -> None:
  """Raises ValueError unless an array's spec has finite bounds.

  Args:
    name: what it is called.
    spec: the spec.

  Raises:
    ValueError: if it has none, or one that is infinite or a NaN, or a least
      value that is not below the greatest.
  """
  minimum = getattr(spec, "minimum", None)
  maximum = getattr(spec, "maximum", None)
  if minimum is None or maximum is None:
    raise ValueError(
      f"{name} must be bounded, got an unbounded spec: {in_a_line(spec)}; "
      + _GIVE_BOUNDS
    )
  got = f"minimum={in_a_line(minimum)}, maximum={in_a_line(maximum)}"
  if not (np.all(np.isfinite(minimum)) and np.all(np.isfinite(maximum))):
    raise ValueError(
      f"{name} must be bounded, got infinite bounds: {got}; {_GIVE_BOUNDS}"
    )
  if np.any(np.asarray(minimum) >= np.asarray(maximum)):
    raise ValueError(f"{name} must have minimum < maximum, got {got}.")


_GIVE_BOUNDS = (
  "give finite ones by acme_qsm.environments.adapt(environment, minimum=..., "
  "maximum=...)."
)


def _require_unit_box(actions: Any) -> None:
  """Raises ValueError unless a spec is of floats in [-1, 1], not float64."""
  require_finite_bounds("actions", actions)
  minimum, maximum = actions.minimum, actions.maximum
  if not (np.allclose(minimum, -1.0) and np.allclose(maximum, 1.0)):
    raise ValueError(
      "actions must be scaled to [-1, 1], got "
      f"minimum={in_a_line(minimum)}, maximum={in_a_line(maximum)}; "
      + wrap_in("CanonicalActions", "CanonicalSpecWrapper")
    )
  require_single_precision("actions", actions)


def in_a_line(value: Any) -> str:
  """A value as errors show it: in one line, and not a long one."""
  text = " ".join(str(value).split())
  return text if len(text) <= _LINE else f"{text[:_LINE]} ..."


def require_single_precision(name: str, spec: Any) -> None:
  """Raises ValueError if an array's spec is float64."""
  if np.dtype(spec.dtype) == np.float64:
    raise ValueError(
      f"{name} must be in single precision, got dtype float64; "
      + wrap_in("SinglePrecision", "SinglePrecisionWrapper")
    )


def wrap_in(*names: str) -> str:
  """Says which wrapper helps.

  Args:
    *names: what it is called here, and in Acme if that has one.

  Returns:
    The end of a message.
  """
  modules = ("acme_qsm.environments.wrappers", "acme.wrappers")
  wrappers = map(".".join, zip(modules, names, strict=False))
  return (
    "give the environment to acme_qsm.environments.adapt, or wrap the "
    f"environment in {' or '.join(wrappers)}."
  )
