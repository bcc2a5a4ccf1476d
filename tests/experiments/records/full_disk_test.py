"""Runs in one process whose disk is full for a while, or for good."""

import contextlib
import functools

import pytest

from acme_qsm.experiments import ExperimentError
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.disk import SaveError
from acme_qsm.experiments.records.loggers import read_csv
from tests import small_disk as small_disks


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of its own, which is soon full."""
  with small_disks.small_disk(tmp_path / "disk", "8m") as disk:
    yield disk


class _Filling:
  """An observer that fills a disk at an environment step, and empties it."""

  def __init__(self, disk, workdir, full_at, empty_at=None):
    self._ballast = disk / "ballast"
    self._workdir = workdir
    self._steps = 0
    self._full_at = full_at
    self._empty_at = empty_at
    self.saved = []

  def observe_first(self, env, timestep):
    pass

  def observe(self, env, timestep, action):
    self._steps += 1
    if self._steps == self._full_at:
      self.saved.append(_saved_steps(self._workdir))
      with self._ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
          with contextlib.suppress(OSError):
            while True:
              file.write(bytes(size))
    if self._steps == self._empty_at:
      self.saved.append(_saved_steps(self._workdir))
      self._ballast.unlink()

  def get_metrics(self):
    return {}


def _saved_steps(workdir):
  latest = checkpointing.Checkpointer(workdir / "checkpoints").latest()
  assert latest is not None
  return latest.metadata["actor_steps"]


@pytest.mark.parametrize(
  ("num_seeds", "replay"),
  [
    (1, "embedded"),
    (2, "embedded"),
    pytest.param(1, "reverb", marks=[pytest.mark.acme, pytest.mark.slow]),
  ],
)
def test_a_run_goes_on_while_the_disk_is_full(
  small_disk, make_experiment, capsys, num_seeds, replay
):
  folder = small_disk / "run"
  workdirs = [folder]
  run = functools.partial(run_experiment, replay=replay)
  if num_seeds > 1:
    workdirs = [folder / f"seed_{seed}" for seed in range(num_seeds)]
    run = functools.partial(run_seeds, num_seeds=num_seeds)
  filling = _Filling(small_disk, workdirs[0], num_seeds * 45, num_seeds * 75)
  run(
    make_experiment(110, directory=folder, observers=[filling], minutes=1e-9),
    eval_every=30,
  )
  # The last checkpoint stayed, and there are newer ones by now.
  assert 40 <= filling.saved[0] == filling.saved[1] <= 45
  output = capsys.readouterr().out
  (warning,) = [line for line in output.splitlines() if "Warning" in line]
  assert "cannot be written: " in warning
  assert "No space left on device" in warning
  assert output.count("can be written again.") == 1
  assert output.index(warning) < output.index("can be written again.")
  for workdir in workdirs:
    assert _saved_steps(workdir) == 110
    rows = read_csv(workdir / "logs" / "evaluator.csv")["actor_steps"]
    # A row may fit into what a file has left of its last page.
    assert list(rows) in ([30, 60, 90, 110], [30, 90, 110])
    assert (workdir / "learning_curve.png").stat().st_size > 1000


def test_an_end_that_cannot_be_saved_is_said(
  small_disk, make_experiment, capsys
):
  workdir = small_disk / "run"
  filling = _Filling(small_disk, workdir, 45)
  experiment = make_experiment(
    60, directory=workdir, observers=[filling], minutes=1e-9
  )
  with pytest.raises(SaveError, match="last checkpoint could not be written:"):
    run_experiment(experiment, num_eval_episodes=0)
  assert "Done" not in capsys.readouterr().out
  assert _saved_steps(workdir) == filling.saved[0]
  # Nor does it start again.
  with pytest.raises(ExperimentError, match=r"cannot start: .*No space left"):
    run_experiment(experiment, num_eval_episodes=0)
  assert _saved_steps(workdir) == filling.saved[0]
  # A new one has nowhere to be.
  with pytest.raises(ExperimentError, match=r"written to: .*No space left"):
    run_experiment(make_experiment(60, directory=small_disk / "other"))
