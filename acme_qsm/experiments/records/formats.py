"""The versions of what a run leaves, and how older ones are read.

1: `config.json` names the class of the builder; the learner's state has the
field names of Q-score matching.
2: `config.json` names the agent; the state's fields are those of any method.

Whoever changes the format raises `VERSION` and says here how the one before is
read. Checkpoints and `config.json` have the same versions.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

VERSION = 2
VERSION_KEY = "format_version"

DEFAULTS: Mapping[str, Any] = {
  "action_repeat": 1,
  # JAX's own in every release that this project ever ran on.
  "random_numbers": {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
  },
}
"""What a value of `config.json` was before it was written there."""

AGENTS_1 = {"QSMBuilder": "qsm"}
"""The agents that version 1 called by their builders."""
_STATE_FIELDS_1 = {
  ".denoiser_params": ".policy_params",
  ".target_denoiser_params": ".target_policy_params",
  ".denoiser_opt_state": ".policy_opt_state",
  ".action_gradient_square": ".method_state.action_gradient_square",
  ".extra": ".method_state",
}


def refusal(what: str, version: Any) -> str | None:
  """Says why a version cannot be read, and what to do.

  Args:
    what: what has the version.
    version: the version that was found.

  Returns:
    The reason; None if it can be read.
  """
  if version in range(1, VERSION + 1):
    return None
  return (
    f"{what} has format version {version!r}; this release reads 1 to "
    f"{VERSION}. Go on with the release that wrote it."
  )


def upgrade_config(found: Mapping[str, Any]) -> dict[str, Any]:
  """Turns what a `config.json` says into what it says today.

  Args:
    found: its content, of any version that can be read.

  Returns:
    The content in the current format, without the version.
  """
  config = dict(found)
  version = config.pop(VERSION_KEY, 1)
  if version == 1 and "builder" in config:
    builder = config.pop("builder")
    config["agent"] = AGENTS_1.get(builder, builder)
  if "config" in config:
    config["config"] = _upgrade_langevin(config["config"])
  return config


def _upgrade_langevin(fields: Any) -> Any:
  """Halves the scale of Langevin dynamics that drew exp(scale Q).

  Since fields have a `posterior_variance`, they draw exp(2 scale Q), as the
  reverse process does.
  """
  if not isinstance(fields, Mapping) or "posterior_variance" in fields:
    return fields
  if not fields.get("langevin"):
    return fields
  halved = ("q_score_scale", "action_gradient_clip")
  return {
    name: value / 2 if name in halved and value is not None else value
    for name, value in fields.items()
  }


def leaf_names(version: int, wanted: frozenset[str]) -> Callable[[str], str]:
  """Makes a function from saved leaves' names to today's.

  Args:
    version: of the checkpoint.
    wanted: the names that are wanted.

  Returns:
    name -> name; a name that is not an older one of one that is wanted stays.
  """

  def today(name: str) -> str:
    if name in wanted:
      return name
    for old, new in _STATE_FIELDS_1.items():
      renamed = new + name[len(old) :]
      if name.startswith(old) and renamed in wanted:
        return renamed
    return name

  return today


def upgrade_leaves(
  found: Mapping[str, np.ndarray], wanted: frozenset[str]
) -> Mapping[str, np.ndarray]:
  """Turns leaves into what today's state has in their place.

  `dpmd`'s running variance of Q was a running mean square, of which little is
  left beside a large mean: it is right again a few thousand updates later.

  Args:
    found: a checkpoint's leaves by name.
    wanted: the names that are wanted.

  Returns:
    Leaves by name.
  """
  square, variance = ".extra.q_square", ".method_state.q_variance"
  if square not in found or variance not in wanted:
    return found
  leaves = dict(found)
  mean = leaves[".extra.q_mean"].astype(np.float64)
  left = np.maximum(leaves.pop(square) - np.square(mean), 0.0)
  return {**leaves, variance: left.astype(np.float32)}


def defaults(value: Any) -> Any:
  """The defaults of all dataclasses in a value, in its shape.

  Args:
    value: a dataclass, or a mapping that holds some.

  Returns:
    Defaults by name, as deep as there are any.
  """
  if isinstance(value, Mapping):
    return {key: defaults(item) for key, item in value.items()}
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    return {}
  found = {}
  for field in dataclasses.fields(value):
    if field.default is not dataclasses.MISSING:
      found[field.name] = field.default
    elif field.default_factory is not dataclasses.MISSING:
      found[field.name] = field.default_factory()
  return found
