"""A method whose policy gives extras: its learner sees them as they were given.

In runs, from the policy through actor, adder and replay.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import core
from acme_qsm import DiffusionBuilder
from acme_qsm import methods
from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds
from acme_qsm.experiments.records.checkpointing import Checkpointer

BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True)
class ExtrasConfig(ActorCriticConfig):
  """Of a method that learns nothing, and looks whether extras are right."""


class State(NamedTuple):
  """What it counts.

  Attributes:
    steps: [] learner steps.
    num_wrong: [] transitions whose extras are not those of their actions.
    most: [] the most that a transition was sampled, as its extras say.
  """

  steps: jax.Array
  num_wrong: jax.Array
  most: jax.Array


def make_extras(observation, action):
  """Extras that tell which observation and action they were given beside."""
  bits = jax.lax.bitcast_convert_type(action[:, 0], jnp.int32)
  return {
    # Over all of int32's range.
    "hash": bits * jnp.int32(-1640531527),
    "image": observation[:, :, None, None] * jnp.ones((2, 3)),
    "num_samples": jnp.zeros(action.shape[0], jnp.int32),
  }


EXTRAS_SPEC = {
  "hash": types.ArraySpec((), np.int32),
  "image": types.ArraySpec((2, 2, 3)),
  "num_samples": types.ArraySpec((), np.int32),
}


def make_policy(networks, config, evaluation=False):
  def apply(params, key, observation):
    shape = (observation.shape[0], 1)
    action = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return action, {} if evaluation else make_extras(observation, action)

  return core.Policy(apply, evaluation, {} if evaluation else EXTRAS_SPEC)


def make_learner_core(networks, config):
  def update_extras(state, transitions):
    extras = transitions.extras
    more = {**extras, "num_samples": extras["num_samples"] + 1}
    return transitions._replace(extras=more)

  def step(state, transitions):
    extras = transitions.extras
    expected = make_extras(transitions.observation, transitions.action)
    is_wrong = (extras["hash"] != expected["hash"]) | jnp.any(
      extras["image"] != expected["image"], axis=(1, 2, 3)
    )
    state = State(
      state.steps + 1,
      state.num_wrong + jnp.sum(is_wrong),
      jnp.maximum(state.most, jnp.max(extras["num_samples"])),
    )
    return state, {"num_wrong": state.num_wrong.astype(jnp.float32)}

  names = ("policy", "acting_policy", "evaluation_policy")
  return core.LearnerCore(
    init=lambda key: State(*jnp.zeros((3,), jnp.int32)),
    step=step,
    policy_params=lambda state: state.steps,
    variables=dict.fromkeys(names, lambda state: state.steps),
    update_extras=update_extras,
  )


@pytest.fixture
def make_own_experiment(make_experiment, monkeypatch):
  """Makes an experiment of the method, in a directory."""
  method = core.Method(
    config=ExtrasConfig,
    make_learner_core=make_learner_core,
    make_policy=make_policy,
    make_networks=lambda spec, config: (),
  )
  monkeypatch.setitem(methods.METHODS, "extras", method)
  config = ExtrasConfig(
    batch_size=BATCH_SIZE,
    samples_per_insert=8.0,
    min_replay_size=16,
    max_replay_size=1_000,
    n_step=3,
  )

  def make(num_steps, **kwargs):
    return make_experiment(
      num_steps, config, make_builder=DiffusionBuilder, **kwargs
    )

  return make


def read_state(directory):
  checkpoint = Checkpointer(directory / "checkpoints").latest()
  arrays = np.load(checkpoint.path / "learner.npz")
  return State(*(int(arrays[f".{name}"]) for name in State._fields))


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(
  "replay", ["embedded", pytest.param("reverb", marks=pytest.mark.acme)]
)
def test_a_learner_sees_what_its_policy_gave(
  tmp_path, make_own_experiment, replay, num_envs
):
  # In two parts: the second one goes on from what the first saved.
  for num_steps in (60, 120):
    run_experiment(
      make_own_experiment(num_steps),
      num_eval_episodes=1,
      eval_every=60,
      replay=replay,
      num_envs=num_envs,
    )
  state = read_state(tmp_path / "run")
  assert state.steps > 80
  assert state.num_wrong == 0
  # What Reverb holds stays as it was given.
  assert (state.most > 1) if replay == "embedded" else (state.most == 1)


def test_so_do_several_seeds(tmp_path, make_own_experiment):
  run_seeds(make_own_experiment(60), 2, num_eval_episodes=0, num_envs=2)
  for seed in range(2):
    state = read_state(tmp_path / "run" / f"seed_{seed}")
    assert state.steps > 20
    assert state.num_wrong == 0
    assert state.most > 1
