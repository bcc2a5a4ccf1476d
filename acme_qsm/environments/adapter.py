"""Brings any environment into the form that agents here expect."""

from typing import Any

import dm_env

from acme_qsm.environments import wrappers


def adapt(
  environment: dm_env.Environment,
  *,
  minimum: Any = None,
  maximum: Any = None,
  flatten: bool = True,
) -> dm_env.Environment:
  """Brings an environment into the form that agents here expect.

  Args:
    environment: any. Observations are numbers (truth values and integers too)
      or arrays of them, of any shape, or dictionaries, lists and tuples of
      such, nested as may be. Actions are one array of floats, of any shape,
      between finite bounds. Rewards and discounts are one number each, or an
      array of one.
    minimum: the least of actions, for all of them or each, in the environment's
      own units: needed where it has no bound of its own, or MuJoCo's -1e10.
      Where it has one, the narrower of the two counts. None for its own.
    maximum: the greatest, likewise.
    flatten: whether observations become one vector; else each array keeps its
      shape and its place, for networks of your own.

  Returns:
    The environment: observations are one float32 vector, the parts of
    dictionaries by name, those of lists in their order; actions are a float32
    vector in [-1, 1], others are clipped, and the environment inside is given
    the type, the shape and the bounds that its spec says; rewards and discounts
    are float32. Numbers are rounded to float32, integers beyond 2^24 among
    them; those that are beyond float32 (3.4e38), and time steps that are not
    what the specs say, are refused when they come, with their step.

  Raises:
    ValueError: says in one line what cannot be brought: actions that are
      discrete, unbounded, empty, none or several arrays, bounds that are a NaN
      or not below each other; observations that are strings or empty; rewards
      that are no number.
  """
  for name in ("observation_spec", "action_spec", "reset", "step"):
    if not hasattr(environment, name):
      raise ValueError(
        "environment must be a dm_env.Environment, got "
        f"{type(environment).__name__}, which has no {name}."
      )
  environment = wrappers.BoundedActions(environment, minimum, maximum)
  environment = wrappers.CanonicalActions(environment)
  # Outside of those: it turns actions into the environment's precision first.
  environment = wrappers.FlatActions(environment)
  environment = wrappers.FloatObservations(environment, flatten=flatten)
  environment = wrappers.ScalarRewards(environment)
  return wrappers.SinglePrecision(environment)
