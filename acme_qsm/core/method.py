"""What a method is: all that one says which the others do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

from acme_qsm import configuration
from acme_qsm import networks as networks_lib
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.deferred import jax


class Context(NamedTuple):
  """What a policy loss may look at, and not change.

  Attributes:
    critic_params: the critics' parameters, after their update.
    target_critic_params: the target critics' parameters.
    target_policy_params: the target policy's parameters.
    next_action: [B, A] the policy's actions at the next observations, which the
      critics' target was made of.
    updates: [] int32 updates of the policy made before.
  """

  critic_params: types.Params
  target_critic_params: types.Params
  target_policy_params: types.Params
  next_action: jax.Array
  updates: jax.Array


PolicyLoss: TypeAlias = Callable[
  [types.Params, Any, types.Transition, "jax.Array", Context],
  tuple["jax.Array", tuple[Any, types.Metrics]],
]
"""(policy's parameters, method state, transitions, two PRNG keys [2], context)
-> (loss [], (new method state, metrics)). The gradient is that of the first
argument; both keys are consumed. Metrics are scalars, whole numbers too; one
that is not is refused when a step is made."""


UpdateExtras: TypeAlias = Callable[
  [types.Params, types.Transition], types.Extras
]
"""(critics' parameters, transitions with extras) -> their new extras."""


def _make_networks(*args: Any, **kwargs: Any) -> acting.Networks:
  # They are loaded with Haiku, once they are made.
  return networks_lib.make_networks(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to learn a policy.

  Its functions take the networks and the configuration, and make what the
  training step calls.

  Attributes:
    config: its configuration: the shared fields and its own.
    make_policy_loss: (networks, config) -> what the policy descends.
    metrics: names of what that loss reports, in the order of display.
    init_method_state: config -> what its training state holds beside the shared
      part: a pytree of arrays, such as a temperature or running moments.
    noise_scale: (config, method state) -> factor [] of the noise on actions
      while collecting data and in the critics' target; None for none.
    make_networks: (environment_spec, config, **own networks) -> networks.
    make_sampler: (networks, config, evaluation) -> what draws actions.
    make_critic_loss: (networks, config) -> what the critics descend.
    make_next_value_bonus: (networks, config) -> what is added to the value of
      the next action in the critics' target, such as its entropy: (policy's
      parameters, method state, key, next observation [B, ...]) -> [B], in units
      of scaled reward; None for nothing.
    make_update_extras: (networks, config) -> what replay's `extras` become when
      they are sampled, before the step that they are sampled for: (critics'
      parameters, transitions) -> extras; None where they stay as they are.
    make_policy: (networks, config, evaluation) -> policy; None for
      `acting.make_policy` of the sampler's actions.
    presets: configurations by name; "default" is there in any case.
  """

  config: type[ActorCriticConfig]
  make_policy_loss: Callable[[Any, Any], PolicyLoss]
  metrics: Sequence[str]
  init_method_state: Callable[[Any], Any] = lambda config: ()
  noise_scale: Callable[[Any, Any], jax.Array | None] = (
    lambda config, method_state: None
  )
  make_networks: Callable[..., acting.Networks] = _make_networks
  make_sampler: Callable[..., acting.Sampler] = sampling.make_sampler
  make_critic_loss: Callable[[Any, Any], critics.CriticLoss] = (
    critics.make_critic_loss
  )
  make_next_value_bonus: Callable[
    [Any, Any], Callable[..., jax.Array] | None
  ] = lambda networks, config: None
  make_update_extras: Callable[[Any, Any], UpdateExtras | None] = (
    lambda networks, config: None
  )
  make_policy: Callable[..., acting.Policy] | None = None
  presets: Mapping[str, ActorCriticConfig] = dataclasses.field(
    default_factory=dict
  )

  def preset(self, name: str) -> ActorCriticConfig:
    """A configuration by its name.

    Args:
      name: the preset's.

    Returns:
      The configuration.

    Raises:
      ValueError: if there is none of that name; names similar ones.
    """
    presets = {"default": self.config(), **self.presets}
    configuration.require_known("preset", name, presets)
    return presets[name]
