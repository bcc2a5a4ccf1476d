"""EnvPool's environments: those of dm_control, state by state.

Where EnvPool is installed; `install_test.py` sees to that.
"""

import dm_env
import numpy as np
import pytest

from acme_qsm import environments
from acme_qsm.environments import dm_control
from acme_qsm.environments import pool
from acme_qsm.specs import make_environment_spec
from tests.environments.transitions import run_and_compare

TASKS = [task for task in environments.TASKS if not task.startswith("lqr:")]
STEPS = 50


# How each task's state is told from its observation, by its fields' names in
# alphabetical order: qpos and qvel.


def _cartpole(seen):
  x, cosine, sine, *velocity = seen
  return [x, np.arctan2(sine, cosine)], velocity


def _from_the_second(seen):
  # How far it is along the track is no matter.
  half = len(seen) // 2
  return [0.0, *seen[:half]], seen[half:]


def _hopper(seen):
  return [0.0, *seen[:6]], seen[6:13]


def _pendulum(seen):
  cosine, sine, velocity = seen
  return [np.arctan2(sine, cosine)], [velocity]


def _ball_in_cup(seen):
  return seen[:4], seen[4:]


def _point_mass(seen):
  return seen[:2], seen[2:]


def _walker(seen):
  height, orientations, velocity = seen[0], seen[1:15], seen[15:]
  torso, *legs = np.arctan2(orientations[1::2], orientations[::2])
  joints = []
  for leg in (legs[:3], legs[3:]):
    # Each turns about an axis opposite to the torso's, by less than pi.
    turned = np.subtract([torso, *leg[:2]], leg)
    joints += [*((turned + np.pi) % (2 * np.pi) - np.pi)]
  return [height - 1.3, 0.0, torso, *joints], velocity


STATES = {
  "ball_in_cup:catch": _ball_in_cup,
  "cartpole:swingup": _cartpole,
  "cheetah:run": _from_the_second,
  "hopper:stand": _hopper,
  "pendulum:swingup": _pendulum,
  "point_mass:easy": _point_mass,
  "walker:walk": _walker,
}


@pytest.fixture
def make():
  pools = []

  def make_pool(*args, **kwargs):
    pools.append(pool.Pool(*args, **kwargs))
    return pools[-1]

  yield make_pool
  for one in pools:
    one.close()


@pytest.mark.parametrize("action_repeat", [1, 2])
@pytest.mark.parametrize("task", STATES)
def test_steps_are_those_of_dm_control(task, action_repeat, make):
  ours = make(task, [3, 4], action_repeat=action_repeat)
  theirs = dm_control.make(task, 0, action_repeat=action_repeat)
  ours.reset(0)
  # In double precision, which contacts would make much of.
  fields = ours._pool.reset(np.array([1])).observation
  names = sorted(theirs.task.get_observation(theirs.physics))
  start = np.concatenate([getattr(fields, name).ravel() for name in names])
  theirs.reset()
  with theirs.physics.reset_context():
    position, velocity = STATES[task](start)
    theirs.physics.data.qpos[:] = position
    theirs.physics.data.qvel[:] = velocity
  shape = theirs.action_spec().shape
  random = np.random.default_rng(0)
  for _ in range(STEPS):
    # Beyond the bounds too, where they are clipped.
    actions = random.uniform(-1.3, 1.3, (2, *shape)).astype(np.float32)
    _, ours_step = ours.step(actions)
    their_step = theirs.step(actions[1])
    assert ours_step.step_type == their_step.step_type
    # 1e-16 apart at the start; contacts multiply that as time goes on, to 1e-5
    # at most here.
    for name in ("observation", "reward", "discount"):
      value, expected = getattr(ours_step, name), getattr(their_step, name)
      np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
      assert value.dtype == expected.dtype
      assert value.shape == expected.shape


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_spec_of_dm_control(task, make):
  spec = make_environment_spec(dm_control.make(task, 0))
  ours = make(task, [0])
  steps = [ours.reset(0), *ours.step([np.ones(spec.actions.shape)])]
  for step in steps:
    assert step.observation.shape == spec.observations.shape
    assert step.observation.dtype == spec.observations.dtype
    assert np.isfinite(step.observation).all()
  assert 0.0 <= steps[1].reward <= 1.0


def test_an_episode_ends_and_another_begins(make):
  ours = make("cartpole:swingup", [0, 1], action_repeat=3)
  ours.reset(0)
  ours.reset(1)
  actions = [np.zeros(1), np.ones(1)]
  # 1,000 frames: the last step has one.
  for number in range(334):
    timesteps = ours.step(actions)
    ended = [step.last() for step in timesteps]
    assert ended == [number == 333] * 2
  assert [step.discount for step in timesteps] == [1.0, 1.0]
  first = ours.reset(1)
  assert first.first()
  assert first.reward is first.discount is None
  # The other waits for its own.
  assert ours.reset(0).first()
  assert all(step.mid() for step in ours.step(actions))
  # As dm_control's do after the last step, whatever is to be repeated.
  for _ in range(333):
    timesteps = ours.step(actions)
  assert all(step.last() for step in timesteps)
  timesteps = ours.step(actions)
  assert all(step.first() for step in timesteps)
  assert {step.reward for step in timesteps} == {None}
  assert all(step.mid() for step in ours.step(actions))


def test_those_that_are_not_stepped_stay_where_they_are(make):
  ours, others = make("cheetah:run", [5, 6]), make("cheetah:run", [5, 6])
  for group in (ours, others):
    group.reset(0)
    group.reset(1)
  push, rest = np.ones(6), np.zeros(6)
  for _ in range(10):
    ours.step([push])
  for _ in range(5):
    ours.step([rest, push])
  for _ in range(5):
    last = others.step([rest, push])
  np.testing.assert_array_equal(
    ours.step([rest, push])[1].observation,
    others.step([rest, push])[1].observation,
  )
  assert isinstance(last[0], dm_env.TimeStep)


def test_a_seed_gives_the_same_wherever_it_stands(make):
  seeds = [1, 2, 2**32 - 1]
  starts = [
    [group.reset(index).observation for index in (0, 1, 2)]
    for group in (make("walker:walk", seeds), make("walker:walk", seeds[::-1]))
  ]
  np.testing.assert_array_equal(starts[0], starts[1][::-1])
  assert len(np.unique(starts[0], axis=0)) == 3


@pytest.mark.parametrize("n_step", [2, 5])
def test_its_transitions_are_those_of_its_episodes(tmp_path, make, n_step):
  # 1,000 frames: steps of 400, 400 and 200, then a time limit.
  repeat = {"action_repeat": 400}
  ours, theirs = (
    run_and_compare(
      tmp_path / name,
      lambda seed: dm_control.make("cartpole:swingup", seed, **repeat),
      make_group,
      num_envs=2,
      n_step=n_step,
      num_steps=8,
    )
    for name, make_group in (
      ("envpool", lambda seeds: make("cartpole:swingup", seeds, **repeat)),
      ("dm_control", None),
    )
  )
  ends = [
    [[(step[2], step[4]) for step in episode[1:]] for episode in of_one]
    for of_one in ours
  ]
  going, last = (1.0, False), (1.0, True)
  assert ends == [[[going, going, last]] * 2 + [[going, going]]] * 2
  assert ends == [
    [[(step[2], step[4]) for step in episode[1:]] for episode in of_one]
    for of_one in theirs
  ]


def test_a_run_in_one_process(tmp_path):
  from launchers import local

  command = f"--workdir {tmp_path} --min_replay_size 300 --num_envs 3"
  command += " --num_eval_episodes 1 --updates_per_step 0.05 --eval_every 3100"
  # More episodes than one, and goes on with dm_control's.
  for backend, steps in (("envpool", 3_100), ("dm_control", 3_200)):
    flags = f"{command} --num_steps {steps} --env_backend {backend}"
    assert local.main(flags.split()) == 0
  episodes = (tmp_path / "logs" / "actor.csv").read_text().splitlines()
  assert len(episodes) == 1 + 3
