"""Environments whose types replay refuses, and what is said of them."""

import dataclasses
import functools
import itertools
import re

import dm_env
import numpy as np
import pytest
from dm_env import specs

from acme_qsm import experiments
from acme_qsm import specs as specs_lib
from acme_qsm.environments import wrappers
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.records import checkpointing

EPISODE_LENGTH = 20
SINGLE, DOUBLE = np.float32, np.float64


class Typed(dm_env.Environment):
  """An environment that says one thing of its types, and does another."""

  def __init__(
    self,
    observations=(SINGLE, SINGLE),
    rewards=(SINGLE, SINGLE),
    discounts=(SINGLE, SINGLE),
    actions=None,
  ):
    """Each pair is what the spec says, and what is given."""
    self._said, self._given = zip(observations, rewards, discounts, strict=True)
    self._actions = actions or specs.BoundedArray((1,), SINGLE, -1.0, 1.0)
    self._num_steps = 0

  def _observation(self):
    return np.zeros(2, self._given[0])

  def reset(self):
    self._num_steps = 0
    return dm_env.restart(self._observation())

  def step(self, action):
    self._num_steps += 1
    end = self._num_steps == EPISODE_LENGTH
    make = dm_env.truncation if end else dm_env.transition
    return make(self._given[1](0.5), self._observation(), self._given[2](1.0))

  def observation_spec(self):
    return specs.Array((2,), self._said[0])

  def action_spec(self):
    return self._actions

  def reward_spec(self):
    return specs.Array((), self._said[1])

  def discount_spec(self):
    return specs.BoundedArray((), self._said[2], 0.0, 1.0)


def require_storable(environment):
  time_steps.require_storable(
    specs_lib.make_environment_spec(environment), environment
  )


def is_stored(environment):
  """Whether Acme's adder gets a step into the table that it has for a spec."""
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  import reverb
  from acme.adders import reverb as adders

  spec = specs_lib.make_environment_spec(environment)
  table = reverb.Table.queue(
    adders.DEFAULT_PRIORITY_TABLE,
    10,
    signature=adders.NStepTransitionAdder.signature(spec),
  )
  server = reverb.Server([table])
  try:
    adder = adders.NStepTransitionAdder(
      reverb.Client(f"localhost:{server.port}"), 1, 0.99
    )
    adder.add_first(environment.reset())
    # What every agent in JAX acts with.
    action = np.zeros(1, SINGLE)
    try:
      adder.add(action, environment.step(action))
      adder.reset()
    except ValueError as error:
      if "inconsistent with the table signature" not in str(error):
        raise
      return False
    return table.info.current_size == 1
  finally:
    server.stop()


@pytest.mark.acme
def test_what_is_refused_is_what_reverb_refuses():
  pairs = [*itertools.product((SINGLE, DOUBLE), repeat=2)]
  stored = []
  for observations, rewards, discounts in itertools.product(
    [(SINGLE, SINGLE), (DOUBLE, DOUBLE), (SINGLE, DOUBLE)], pairs, pairs
  ):
    environment = Typed(observations, rewards, discounts)
    stored.append(is_stored(environment))
    if stored[-1]:
      require_storable(environment)
    else:
      with pytest.raises(ValueError, match=r"wrappers\.SinglePrecision"):
        require_storable(environment)
    # Which helps.
    require_storable(wrappers.SinglePrecision(environment))
  # Of both kinds of observations that are as they are said to be: discounts are
  # too, and rewards are as precise as they and discounts are said to be, which
  # is double but where both are single.
  assert sum(stored) == 2 * 4


def test_what_is_wrong_is_said_in_one_line():
  with pytest.raises(ValueError, match="rewards") as raised:
    require_storable(Typed(rewards=(SINGLE, DOUBLE)))
  assert str(raised.value) == (
    "rewards must be float32 of shape () as the specs say, got float64 of "
    "shape (); give the environment to acme_qsm.environments.adapt, or wrap "
    "the environment in acme_qsm.environments.wrappers.SinglePrecision or "
    "acme.wrappers.SinglePrecisionWrapper, around all other wrappers."
  )


class Nested(Typed):
  """The same with observations in a dictionary."""

  def observation_spec(self):
    return {"arm": specs.Array((2,), SINGLE), "leg": specs.Array((), SINGLE)}

  def _observation(self):
    return {"arm": np.zeros(2, SINGLE), "leg": DOUBLE(0.0)}


class Incomplete(Nested):
  """The same, of which a part is missing."""

  def _observation(self):
    return {"arm": np.zeros(2, SINGLE)}


@pytest.mark.parametrize(
  ("environment", "message"),
  [
    (
      Typed(rewards=(SINGLE, float)),
      r"rewards .* got float64.*SinglePrecision",
    ),
    (Typed(rewards=(SINGLE, int)), r"got int64 of shape \(\)\.$"),
    (Typed(rewards=(SINGLE, lambda r: SINGLE([r]))), r"got .* \(1,\)\.$"),
    (
      Typed(discounts=(DOUBLE, DOUBLE)),
      r"rewards must be float64 .* got float32",
    ),
    (Nested(), r"observations\['leg'\] .* float64.*, around all other"),
    (Incomplete(), r"observations\['leg'\] must be float32.*, got nothing\.$"),
    (
      Typed(actions=specs.BoundedArray((1,), DOUBLE, -1.0, 1.0)),
      "actions must be in single precision.*SinglePrecision",
    ),
    (
      Typed(actions=specs.DiscreteArray(3, np.int64)),
      "actions must not be int64.*SinglePrecision",
    ),
  ],
)
def test_what_cannot_be_stored(environment, message):
  with pytest.raises(ValueError, match=message) as raised:
    require_storable(environment)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  "environment",
  [
    wrappers.SinglePrecision(Nested()),
    wrappers.SinglePrecision(
      Typed(actions=specs.BoundedArray((1,), DOUBLE, -1.0, 1.0))
    ),
    wrappers.CanonicalActions(
      Typed(actions=specs.BoundedArray((1,), SINGLE, -2.0, 2.0))
    ),
    wrappers.BoundedActions(
      Typed(actions=specs.Array((1,), SINGLE)), -1.0, 1.0
    ),
    # Other agents of Acme than those that act in the unit box.
    Typed(actions=specs.BoundedArray((1,), SINGLE, -2.0, 2.0)),
    Typed(actions=specs.DiscreteArray(3)),
  ],
)
def test_what_can_be_stored(environment):
  require_storable(environment)


class Unstepped(Typed):
  """One that cannot be had where the run is started."""

  def reset(self):
    raise AssertionError


def test_a_spec_that_is_given_is_all_that_is_looked_at():
  time_steps.require_storable(specs_lib.make_environment_spec(Unstepped()))


@pytest.fixture
def make_sac_experiment(make_experiment):
  """A function that makes an experiment with Acme's SAC."""
  from acme_qsm.agents.acme.adapter import AcmeBuilder  # isort: skip
  from acme.agents.jax import sac

  def make(environment_factory):
    config = sac.SACConfig(
      batch_size=8, samples_per_insert=8, min_replay_size=16
    )
    return dataclasses.replace(
      make_experiment(30, environment_factory=environment_factory),
      builder=AcmeBuilder(
        functools.partial(sac.SACBuilder, config),
        lambda networks, environment_spec, evaluation: (
          sac.apply_policy_and_sample(networks, eval_mode=evaluation)
        ),
      ),
      network_factory=lambda spec: sac.make_networks(spec, (16,)),
    )

  return make


@pytest.mark.acme
@pytest.mark.parametrize(
  "run",
  [
    functools.partial(experiments.run_experiment, num_eval_episodes=0),
    functools.partial(experiments.make_distributed_experiment, num_actors=1),
  ],
)
@pytest.mark.parametrize(
  ("make", "message"),
  [
    (Typed, None),
    (functools.partial(Typed, rewards=(SINGLE, DOUBLE)), "rewards must be"),
    (functools.partial(Typed, rewards=(DOUBLE, SINGLE)), "rewards must be"),
  ],
)
def test_a_run_is_refused_before_any_work(
  tmp_path, make_sac_experiment, run, make, message
):
  experiment = make_sac_experiment(lambda seed: make())
  if message is None:
    run(experiment)
    assert (tmp_path / "run").exists()
    return
  with pytest.raises(experiments.ExperimentError, match=message):
    run(experiment)
  assert not (tmp_path / "run").exists()


@pytest.mark.acme
def test_acme_goes_on_with_what_is_double_as_it_says(
  tmp_path, make_sac_experiment
):
  both = (DOUBLE, DOUBLE)
  experiments.run_experiment(
    make_sac_experiment(lambda seed: Typed(both, both, both)),
    num_eval_episodes=0,
  )
  _require_learnt(tmp_path)


@pytest.mark.parametrize(
  "replay", ["embedded", pytest.param("reverb", marks=pytest.mark.acme)]
)
def test_our_own_replay_takes_any_precision(tmp_path, make_experiment, replay):
  experiments.run_experiment(
    make_experiment(
      40,
      environment_factory=lambda seed: Typed(
        observations=(SINGLE, DOUBLE),
        rewards=(SINGLE, DOUBLE),
        discounts=(DOUBLE, SINGLE),
      ),
    ),
    num_eval_episodes=0,
    replay=replay,
  )
  _require_learnt(tmp_path)


def _require_learnt(tmp_path):
  checkpoint = checkpointing.Checkpointer(
    tmp_path / "run" / "checkpoints"
  ).latest()
  assert checkpoint.metadata["counter"]["counts"]["learner_steps"] > 0


@pytest.mark.acme
def test_bare_dm_control_is_told_wrapper_by_wrapper(make_experiment):
  # What helps is taken, until nothing is wrong any more.
  from dm_control import suite

  found, environment = [], suite.load("cartpole", "swingup")
  for _ in range(3):
    experiment = make_experiment(
      environment_factory=lambda seed, made=environment: made
    )
    try:
      experiments.make_distributed_experiment(experiment, num_actors=1)
      break
    except experiments.ExperimentError as error:
      name = re.search(r"environments\.wrappers\.(\w+)", str(error)).group(1)
      found.append(name)
      environment = getattr(wrappers, name)(environment)
  assert found == ["SinglePrecision", "FloatObservations"]
