"""What the command lines that train have in common: flags and experiment."""

import argparse
import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Annotated
from typing import Any
from typing import TypeAlias
from typing import TypeVar

import tyro

import acme_qsm
from acme_qsm import configs
from acme_qsm import configuration
from acme_qsm import environments
from acme_qsm.agents import acme as acme_agents
from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.surroundings import compilation_cache
from acme_qsm.experiments.surroundings import own_modules

_DEFAULT_AGENT, _DEFAULT_PRESET = "qsm", "default"


@dataclasses.dataclass(frozen=True)
class Arguments:
  """The flags of a run of an agent on a dm_control task.

  Attributes:
    config: the agent's hyper-parameters.
    agent: the method that is trained, or acme_sac or acme_td3 for Acme's own
      agents; the flags that there are depend on it. MODULE:NAME for a method of
      your own, which the module puts into acme_qsm.methods.METHODS.
    preset: what the hyper-parameters are unless given, by a name that the
      method has for them.
    task: a task of the dm_control suite, as domain:task.
    action_repeat: frames that each environment step takes with one action.
    seed: seed of parameters, actions and environments.
    num_steps: environment steps to train for, each of action_repeat frames.
    workdir: where the run's files go; by default runs/<task>/seed_<seed>, in a
      folder of the agent's name unless it is qsm.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.
    checkpoint_minutes: minutes between checkpoints.
    max_checkpoints: checkpoints to keep.
    compilation_cache: whether what JAX compiles is kept in the user's cache
      folder, for the next start.
  """

  config: Annotated[configuration.Configuration, tyro.conf.arg(name="")]
  agent: str = _DEFAULT_AGENT
  preset: str = _DEFAULT_PRESET
  task: str = "cartpole:swingup"
  action_repeat: int = 1
  seed: int = 0
  num_steps: int = 100_000
  workdir: str | None = None
  eval_every: int = 5_000
  num_eval_episodes: int = 5
  checkpoint_minutes: float = 5.0
  max_checkpoints: int = 2
  compilation_cache: bool = True

  @property
  def directory(self) -> str:
    """The work directory."""
    return self.workdir or f"{self.folder}/seed_{self.seed}"

  @property
  def folder(self) -> str:
    """Where the work directories of all seeds are, unless workdir says so."""
    task = self.task.replace(":", "_")
    agent = "" if self.agent == _DEFAULT_AGENT else f"{self.agent}/"
    return f"runs/{agent}{task}"


_Arguments = TypeVar("_Arguments", bound=Arguments)
_Agents: TypeAlias = Mapping[str, Mapping[str, configuration.Configuration]]


def parse(
  arguments_type: type[_Arguments],
  argv: list[str] | None = None,
  description: str | None = None,
) -> _Arguments:
  """Reads the command line.

  Args:
    arguments_type: `Arguments` or what extends it.
    argv: the arguments; None for those of the process.
    description: what the help says first.

  Returns:
    The arguments, checked.

  Raises:
    SystemExit: if they cannot be read, with a message.
    ValueError: if a value is not allowed.
  """
  # These first: the other flags, and their defaults, depend on them.
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("--agent", default=_DEFAULT_AGENT)
  parser.add_argument("--preset", default=_DEFAULT_PRESET)
  chosen = parser.parse_known_args(argv)[0]
  agent = _import_own(chosen.agent)
  agents = _find_agents()
  configuration.require_known("agent", agent, agents)
  _require_own_settings(agents, agent, sys.argv[1:] if argv is None else argv)
  configuration.require_known("preset", chosen.preset, agents[agent])
  config = agents[agent][chosen.preset]
  with_config = _with_config(arguments_type, type(config))
  arguments = tyro.cli(
    with_config,
    args=argv,
    description=(
      f"{(description or '').strip()}\n\n"
      f"Agents: {', '.join(agents)}.\n\n"
      f"Presets of {agent}: {', '.join(agents[agent])}."
    ),
    default=with_config(config=config),
    use_underscores=True,
  )
  environments.validate_task(arguments.task)
  environments.validate_action_repeat(arguments.action_repeat)
  EvaluationSchedule(
    arguments.eval_every, arguments.num_eval_episodes, arguments.num_steps
  )
  return dataclasses.replace(arguments, agent=agent)


def _import_own(agent: str) -> str:
  """Imports the module of MODULE:NAME, and returns NAME.

  Raises:
    ValueError: if there is no such module, it cannot be the name of one, or it
      is in the current folder, but Python finds another one of its name first.
  """
  module, separator, name = agent.rpartition(":")
  if not separator:
    return agent
  if not all(map(str.isidentifier, module.split("."))):
    raise ValueError(f"agent must be NAME or MODULE:NAME, got {agent!r}.")
  # All processes of the run look in the folder where the command was typed.
  folder = os.getcwd()
  own_modules.find_in(folder)
  try:
    imported = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
      raise
    raise ValueError(
      f"agent {agent!r}: there is no module {error.name!r} in {folder}, and "
      "none is installed."
    ) from error
  found = getattr(imported, "__file__", None)
  path = pathlib.Path(folder, *module.split("."))
  own = [
    each.resolve()
    for each in (path.with_suffix(".py"), path / "__init__.py")
    if each.exists()
  ]
  if own and (found is None or pathlib.Path(found).resolve() not in own):
    raise ValueError(
      f"agent {agent!r}: the module {module!r} in {folder} has the name of "
      f"{found or 'one of Python'}, which comes first: rename it."
    )
  return name


def _find_agents() -> _Agents:
  """By each agent's name its presets by name."""
  found: dict[str, Mapping[str, configuration.Configuration]] = {
    **configs.PRESETS
  }
  # One's own are there once their module has been imported.
  if "acme_qsm.methods" in sys.modules:
    for name, method in acme_qsm.methods.METHODS.items():
      found[name] = {_DEFAULT_PRESET: method.config(), **method.presets}
  for name, config in acme_agents.CONFIGS.items():
    found[name] = {_DEFAULT_PRESET: config()}
  return found


def _require_own_settings(
  agents: _Agents, agent: str, argv: Sequence[str]
) -> None:
  """Raises ValueError for a flag that other agents have, but not this one.

  A flag that no agent has may be one of the launcher's.
  """
  for argument in argv:
    flag = argument.split("=")[0]
    name = flag.removeprefix("--").replace("-", "_").removeprefix("no_")
    owners = [
      owner
      for owner, presets in agents.items()
      if name in presets[_DEFAULT_PRESET].__dataclass_fields__
    ]
    if flag.startswith("--") and owners and agent not in owners:
      raise ValueError(
        f"{flag} is a setting of {_enumerate(owners)}, not of {agent}."
      )


def _enumerate(names: Sequence[str]) -> str:
  """The names in a sentence: a, b and c."""
  *others, last = names
  return f"{', '.join(others)} and {last}" if others else last


def _with_config(
  arguments_type: type[_Arguments],
  config_type: type[configuration.Configuration],
) -> type[_Arguments]:
  """The same arguments, whose config is of one agent."""
  field = ("config", Annotated[config_type, tyro.conf.arg(name="")])
  return dataclasses.make_dataclass(
    arguments_type.__name__,
    [(*field, dataclasses.field())],
    bases=(arguments_type,),
    frozen=True,
    namespace={"__doc__": arguments_type.__doc__},
  )


def is_acmes(arguments: Arguments) -> bool:
  """Whether the agent is one of Acme's own."""
  return isinstance(arguments.config, acme_agents.AcmeConfig)


def make_experiment(arguments: Arguments) -> ExperimentConfig:
  """Makes the experiment that the arguments describe.

  It also has JAX keep what it compiles, unless the arguments say otherwise.

  Raises:
    ValueError: if a value is not allowed.
    ModuleNotFoundError: for an agent of Acme's, without the extra `acme`.
  """
  config: Any = arguments.config
  task, action_repeat = arguments.task, arguments.action_repeat
  experiment = ExperimentConfig(
    builder=None,
    network_factory=lambda spec: acme_qsm.make_networks(spec, config),
    environment_factory=lambda seed: environments.make(
      task, seed, action_repeat=action_repeat
    ),
    max_num_actor_steps=arguments.num_steps,
    seed=arguments.seed,
    checkpointing=CheckpointingConfig(
      max_to_keep=arguments.max_checkpoints,
      directory=arguments.directory,
      add_uid=False,
      time_delta_minutes=arguments.checkpoint_minutes,
    ),
    description={"task": task, "action_repeat": action_repeat},
  )
  # JAX is loaded here, where all is well that can be told without.
  if arguments.compilation_cache:
    compilation_cache.use()
  if not is_acmes(arguments):
    builder = acme_qsm.DiffusionBuilder(config)
    return dataclasses.replace(experiment, builder=builder)
  return dataclasses.replace(
    experiment,
    builder=acme_agents.AcmeAgentBuilder(config),
    network_factory=lambda spec: acme_agents.make_networks(spec, config),
  )
