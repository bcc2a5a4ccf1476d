"""How many network evaluations an update takes, counted on paper.

In units of one network's forward pass for one row of the batch, policy and
critic alike: a gradient of parameters takes two more, one of an action alone
one more, as in any network of wide layers. What an update takes beside its
networks is not counted, so that small ones are cheaper on paper than they are.
"""

from collections.abc import Callable
from typing import Any

from acme_qsm import configuration


def count(config: Any) -> float:
  """Counts what one learner step takes, a mean over several.

  Args:
    config: the configuration of one of this library's methods.

  Returns:
    Evaluations per row of the batch: the critics' target's action, the target
    and the critics' gradient, and the policy's loss and gradient as often as
    it is updated.

  Raises:
    ValueError: if the method is not known.
  """
  name = type(config).__name__
  configuration.require_known("configuration", name, _POLICY_LOSSES)
  if name == "GaussianConfig":
    target_action = 1 + config.entropy_in_target
  else:
    target_action = _draw_action(config)
  critics = config.num_critics * (1 + 3)
  policy = _POLICY_LOSSES[name](config)
  return target_action + critics + policy / config.policy_update_period


def _draw_action(config: Any) -> int:
  """An action, the best by the critics of as many as the target's has."""
  candidates = config.num_target_candidates
  choice = config.num_critics * candidates if candidates > 1 else 0
  return config.num_denoising_steps * candidates + choice


def _critics_at_samples(config: Any, per_sample: int) -> int:
  """The critics at the reverse samples of an action of replay or a new one."""
  fresh = config.noisy_action_source == "policy"
  critics = config.num_critics * per_sample * config.num_reverse_samples
  return 3 + critics + (_draw_action(config) if fresh else 0)


def _count_dpmd(config: Any) -> int:
  drawn = config.num_policy_samples
  if drawn == 1:  # The target's action is used again.
    return 3 + config.num_critics
  return drawn * (config.num_denoising_steps + config.num_critics + 3)


def _count_qvpo(config: Any) -> int:
  drawn = config.num_policy_samples
  return drawn * (config.num_denoising_steps + config.num_critics) + 3 * (
    1 + config.num_random_actions
  )


_POLICY_LOSSES: dict[str, Callable[[Any], int]] = {
  "QSMConfig": lambda config: 3 + 2 * config.num_critics,
  "SDACConfig": lambda config: _critics_at_samples(config, 1),
  "IDEMConfig": lambda config: _critics_at_samples(config, 2),
  "DPMDConfig": _count_dpmd,
  "QVPOConfig": _count_qvpo,
  "DIPOConfig": lambda config: (
    3 + 2 * config.num_critics * config.num_action_moves
  ),
  # The gradient passes through policy and critics, as QSM's does.
  "GaussianConfig": lambda config: 3 + 2 * config.num_critics,
}
