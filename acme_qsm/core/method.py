"""What a method is: how it is told, what it makes, what its batches are."""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Literal

from acme_qsm import configuration
from acme_qsm import networks as networks_lib
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core.acting import Policy
from acme_qsm.core.learner_core import LearnerCore


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to learn a policy.

  Attributes:
    config: its configuration: the shared fields and its own.
    make_learner_core: (networks, config) -> the learner's pure functions; of an
      off-policy actor-critic by `actor_critic.make_learner_core`, of any other
      method as it likes, from the pieces of this room.
    make_policy: (networks, config, evaluation) -> the policy, which takes what
      the learner core's `policy_params` gives; evaluation is False unless told.
    make_networks: (environment_spec, config, **own networks) -> networks.
    presets: configurations by name; "default" is there in any case.
    data: what a batch is: "transitions" drawn from replay, each by itself, or
      "rollouts" of the policy that is learnt, used once: builders refuse those,
      as no replay here gives them, and a loop of one's own does.
  """

  config: type[ActorCriticConfig]
  make_learner_core: Callable[[Any, Any], LearnerCore]
  make_policy: Callable[..., Policy]
  make_networks: Callable[..., Any] = networks_lib.make_networks
  presets: Mapping[str, ActorCriticConfig] = dataclasses.field(
    default_factory=dict
  )
  data: Literal["transitions", "rollouts"] = "transitions"

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
