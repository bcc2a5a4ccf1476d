"""What a run in one process needs, without Acme and all that comes with it."""

import pathlib
import subprocess
import sys

import acme_qsm

MISSING = [
  "acme",
  "gym",
  "gym_notices",
  "launchpad",
  "reverb",
  "rlax",
  "sonnet",
  "tensorflow",
  "tensorflow_probability",
  "trfl",
]

CODE = f"""
import sys

sys.modules.update(dict.fromkeys({MISSING}))

import jax
import numpy as np

import acme_qsm
from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import specs
from acme_qsm import types
from acme_qsm.experiments import evaluation
from acme_qsm.experiments import run
from acme_qsm.experiments.one_seed import OneActor
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec

experiments.ExperimentConfig
config = acme_qsm.QSMConfig(
  policy_hidden_sizes=(16,),
  critic_hidden_sizes=(16,),
  num_denoising_steps=2,
  batch_size=8,
  min_replay_size=8,
)
environment = environments.make("cartpole:swingup", 0)
spec = specs.make_environment_spec(environment)
specs.validate_environment_spec(spec)
codec = TransitionCodec(spec)
builder = acme_qsm.DiffusionBuilder(config)
networks = acme_qsm.make_networks(spec, config)


class Sample:
  def __init__(self, data):
    self.data = data


rows = []
adder = TransitionAdder(
  rows.extend, codec, n_step=config.n_step, discount=config.discount
)


def batches():
  random = np.random.default_rng(0)
  while True:
    yield Sample(np.stack(rows)[random.integers(len(rows), size=8)])


learner = builder.make_learner(
  jax.random.key(0), networks, batches(), environment_spec=spec
)
actor = builder.make_actor(
  jax.random.key(1), builder.make_policy(networks, spec), spec, learner, adder
)
timestep = environment.reset()
actor.observe_first(timestep)
for step in range(20):
  action = actor.select_action(timestep.observation)
  timestep = environment.step(action)
  actor.observe(action, timestep)
  if step >= 10:
    learner.step()
    actor.update(wait=True)
assert int(learner.save().steps) == 10
assert int(actor.params.steps) == 10
evaluator = builder.make_actor(
  jax.random.key(2),
  builder.make_policy(networks, spec, evaluation=True),
  spec,
  learner,
)
(result,) = evaluation.run_episodes(
  OneActor(evaluator), {{0: environments.make("cartpole:swingup", 1)}}, 1
).values()
assert result["episode_length"] == 1000
"""


def test_acting_and_learning_need_none_of_it():
  result = subprocess.run(
    [sys.executable, "-c", CODE],
    capture_output=True,
    text=True,
    check=False,
    # Where this very package was found.
    cwd=pathlib.Path(acme_qsm.__file__).parents[1],
  )
  assert result.returncode == 0, result.stderr
