"""Which transitions reach replay, against what was seen of environments."""

import numpy as np

from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments import ExperimentConfig
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds
from acme_qsm.experiments.records import checkpointing
from acme_qsm.replay import embedded

DISCOUNT = 0.5


class Recorder:
  """An observer of environments that make their steps together, in turn.

  Attributes:
    episodes: of each environment, its episodes; each a list of its first
      observation and of (action, reward, discount, observation, last) by step.
    rows: of each environment, the transitions that its steps complete, packed,
      by the number of the step among all.
  """

  def __init__(self, num_environments, n_step):
    self.episodes = [[] for _ in range(num_environments)]
    self.rows = [[] for _ in range(num_environments)]
    self._n_step = n_step
    self._running = [False] * num_environments
    self._num_steps = 0

  def observe_first(self, unused_environment, timestep):
    # Those without an episode begin one in their order.
    index = self._running.index(False)
    self._running[index] = True
    self.episodes[index].append([np.array(timestep.observation)])

  def observe(self, unused_environment, timestep, action):
    index = self._num_steps % len(self.episodes)
    self._num_steps += 1
    reward, discount = (
      float(np.asarray(value).item())
      for value in (timestep.reward, timestep.discount)
    )
    episode = self.episodes[index][-1]
    seen = np.array(timestep.observation)
    episode.append((np.array(action), reward, discount, seen, timestep.last()))
    self._running[index] = not timestep.last()
    end = len(episode) - 1
    starts = [max(0, end - self._n_step)]
    if timestep.last():
      # Those that the episode's end makes shorter, the longest first.
      starts = range(starts[0], end)
    self.rows[index] += [
      (self._num_steps, _pack(episode, start, end)) for start in starts
    ]

  def get_metrics(self):
    return {}


def _pack(episode, start, end):
  """The transition from one of an episode's steps to another."""
  observed = [episode[0], *(step[3] for step in episode[1:])]
  total, discount = 0.0, 1.0
  for k, (_, reward, own, _, _) in enumerate(episode[start + 1 : end + 1]):
    total += DISCOUNT**k * discount * reward
    discount *= own
  return np.concatenate(
    [
      observed[start],
      episode[start + 1][0],
      [total, DISCOUNT ** (end - start - 1) * discount],
      observed[end],
    ]
  ).astype(np.float32)


def run_and_compare(
  directory,
  make_environment,
  make_group=None,
  num_seeds=1,
  num_envs=1,
  n_step=3,
  num_steps=40,
):
  """Runs, and asserts that replay holds what was seen, in its order.

  Args:
    directory: a new work directory.
    make_environment: seed -> environment.
    make_group: seeds -> environments that step together; None for those of
      make_environment.
    num_seeds: seeds that are trained at once.
    num_envs: environments of each.
    n_step: the most steps of a transition.
    num_steps: steps of each environment.

  Returns:
    The episodes of each environment, those of the first seed first.
  """
  config = QSMConfig(
    policy_hidden_sizes=(8,),
    critic_hidden_sizes=(8,),
    num_denoising_steps=2,
    num_action_candidates=1,
    n_step=n_step,
    discount=DISCOUNT,
    # Nothing is learned.
    min_replay_size=9_999,
    max_replay_size=10_000,
  )
  recorder = Recorder(num_seeds * num_envs, n_step)
  experiment = ExperimentConfig(
    builder=QSMBuilder(config),
    network_factory=lambda spec: make_networks(spec, config),
    environment_factory=make_environment,
    environment_group_factory=make_group,
    max_num_actor_steps=num_steps * num_envs,
    seed=0,
    observers=[recorder],
    checkpointing=CheckpointingConfig(
      directory=str(directory), add_uid=False, time_delta_minutes=60.0
    ),
  )
  if num_seeds == 1:
    run_experiment(experiment, num_eval_episodes=0, num_envs=num_envs)
    folders = [directory]
  else:
    run_seeds(experiment, num_seeds, num_eval_episodes=0, num_envs=num_envs)
    folders = [directory / f"seed_{seed}" for seed in range(num_seeds)]
  for number, folder in enumerate(folders):
    checkpoint = checkpointing.Checkpointer(folder / "checkpoints").latest()
    found = embedded.read(checkpoint.path / "replay").rows()
    own = recorder.rows[number * num_envs :][:num_envs]
    expected = sorted((row for rows in own for row in rows), key=lambda r: r[0])
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, [row[1] for row in expected], rtol=1e-6)
  return recorder.episodes
