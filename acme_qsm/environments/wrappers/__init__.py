"""Wrappers that bring environments into the form that agents here expect.

A file for each part of a time step, or of a spec, that its wrappers change.
They need numpy and dm_env alone. Each step passes through all of them, so that
whatever can be worked out before a step is.
"""

from acme_qsm.environments.wrappers.actions import BoundedActions
from acme_qsm.environments.wrappers.actions import CanonicalActions
from acme_qsm.environments.wrappers.actions import FlatActions
from acme_qsm.environments.wrappers.actions import scale_actions
from acme_qsm.environments.wrappers.base import EnvironmentWrapper
from acme_qsm.environments.wrappers.observations import FloatObservations
from acme_qsm.environments.wrappers.precision import SINGLE
from acme_qsm.environments.wrappers.precision import SinglePrecision
from acme_qsm.environments.wrappers.rewards import ScalarRewards
from acme_qsm.environments.wrappers.time import ActionRepeat

__all__ = [
  "SINGLE",
  "ActionRepeat",
  "BoundedActions",
  "CanonicalActions",
  "EnvironmentWrapper",
  "FlatActions",
  "FloatObservations",
  "ScalarRewards",
  "SinglePrecision",
  "scale_actions",
]
