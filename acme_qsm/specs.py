"""Specs of environments, and whether the library can act in them."""

from typing import Any

import numpy as np

from acme_qsm import types


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
  if not hasattr(actions, "shape") or not hasattr(actions, "dtype"):
    raise ValueError(
      f"actions must be one bounded array of floats, got {actions}."
    )
  if not np.issubdtype(actions.dtype, np.floating):
    raise ValueError(
      "actions must be continuous (a vector of floats in [-1, 1]); got a "
      f"discrete spec: {actions}."
    )
  if len(actions.shape) != 1 or actions.shape[0] < 1:
    raise ValueError(
      f"actions must be a vector [A], got shape {tuple(actions.shape)}."
    )
  _require_unit_box(actions)
  if not hasattr(observations, "shape") or not hasattr(observations, "dtype"):
    raise ValueError(
      f"observations must be one array, got {type(observations).__name__}; "
      + wrap_in("ConcatenatedObservations", "ConcatObservationWrapper")
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


def _require_unit_box(actions: Any) -> None:
  """Raises ValueError unless a spec is of floats in [-1, 1], not float64."""
  minimum = getattr(actions, "minimum", None)
  maximum = getattr(actions, "maximum", None)
  if minimum is None or maximum is None:
    raise ValueError(
      "actions must be bounded to [-1, 1], got an unbounded spec: "
      f"{actions}; " + wrap_in("UnitBounds")
    )
  if not (np.all(np.isfinite(minimum)) and np.all(np.isfinite(maximum))):
    raise ValueError(
      "actions must be bounded to [-1, 1], got infinite bounds: minimum="
      f"{minimum}, maximum={maximum}; " + wrap_in("UnitBounds")
    )
  if np.any(np.asarray(minimum) >= np.asarray(maximum)):
    raise ValueError(
      f"actions must have minimum < maximum, got minimum={minimum}, "
      f"maximum={maximum}."
    )
  if not (np.allclose(minimum, -1.0) and np.allclose(maximum, 1.0)):
    raise ValueError(
      f"actions must be scaled to [-1, 1], got minimum={minimum}, maximum="
      f"{maximum}; " + wrap_in("CanonicalActions", "CanonicalSpecWrapper")
    )
  require_single_precision("actions", actions)


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
  return f"wrap the environment in {' or '.join(wrappers)}."
