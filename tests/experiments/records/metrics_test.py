"""Tests of metrics on their way to logs and displays, and of counts."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm.experiments import counts
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.surroundings import progress


def test_metrics_are_all_numbers_that_are_no_counts():
  row = {
    "loss": jnp.float32(1.5),
    "temperature": 0.2,
    "num_chosen": np.int64(3),
    "steps_per_second": 8.0,
    "actor_steps": 10,
    "learner_steps": np.int32(7),
    "learner_walltime": 0.5,
    "actor_episodes": 1,
    "gradient": np.zeros(3),
    "name": "text",
  }
  assert list(metrics.select(row)) == [
    *("loss", "temperature", "num_chosen", "steps_per_second"),
  ]


class _Rows:
  def __init__(self):
    self.rows = []

  def write(self, row):
    self.rows.append(row["x"])

  def close(self):
    self.rows = None


def test_every_row_is_remembered_and_some_are_passed_on():
  rows = _Rows()
  logger = metrics.SampledLogger(rows, metrics.every(3))
  for x in range(8):
    logger.write({"x": x})
    assert logger.last == {"x": x}
  assert rows.rows == [0, 3, 6]
  logger.close()
  assert rows.rows is None


def test_returns_that_do_not_fit_the_atoms_are_warned_of_once():
  warnings = []
  logger = metrics.SampledLogger(
    metrics.NoLogger(), metrics.every(2), warnings.append
  )
  logger.write({"q_value": 1.0})
  for mass in (0.5, 0.01, 0.5, 0.034, 0.5, 0.9):
    logger.write({"mass_beyond_atoms": jnp.float32(mass)})
  (warning,) = warnings
  assert warning.startswith("Warning: 3.4% of")
  assert "min_value" in warning
  assert "max_value" in warning
  assert "\n" not in warning
  # Who is not to be told of any is not.
  metrics.SampledLogger(metrics.NoLogger(), metrics.every(1)).write(
    {"mass_beyond_atoms": 1.0}
  )


def test_once_in_a_while():
  now = [5.0]
  is_due = metrics.every_seconds(2.0, lambda: now[0])
  answers = []
  for now[0] in (5.0, 6.0, 7.0, 8.0, 9.5):
    answers.append(is_due())
  assert answers == [True, False, True, False, True]


def test_counts_of_several_threads():
  others = {"actor_steps": 4.0, "learner_steps": 1.0}
  counted = counts.Counts({"learner_steps": 100}, others=lambda: others)
  counter = counts.Counter(counted, "learner")

  def count():
    for _ in range(1000):
      counter.increment(steps=1, walltime=0.5)

  threads = [threading.Thread(target=count) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert counted.get_counts() == {
    "actor_steps": 4.0,
    "learner_steps": 4100,
    "learner_walltime": 2000.0,
  }
  assert counted["learner_steps"] == 4100
  assert counted["nothing"] == 0


@pytest.mark.parametrize(
  ("actor_steps", "evaluated_at", "is_due"),
  [
    (0, -1, False),
    (9, -1, False),
    (10, -1, True),
    (10, 10, False),
    (13, 9, True),  # Where no one looked at ten.
    (19, 13, False),
    (35, 20, True),
    (34, 30, False),
    (35, 30, True),  # The last.
    (35, 35, False),
  ],
)
def test_when_a_run_is_evaluated(actor_steps, evaluated_at, is_due):
  schedule = EvaluationSchedule(10, 1, 35)
  assert schedule.is_due(actor_steps, evaluated_at) is is_due
  assert not EvaluationSchedule(10, 0, 35).is_due(actor_steps, evaluated_at)


def test_a_run_shows_whatever_its_learner_measures(
  make_experiment, monkeypatch, capsys
):
  monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.0)
  monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
  run_experiment(make_experiment(60), eval_every=40)
  lines = [
    line for line in capsys.readouterr().out.splitlines() if "left" in line
  ]
  last = lines[-1]
  for name in (
    "learner steps",
    "evaluation",
    "critic_loss",
    "saturated_actions",
  ):
    assert f" {name}=" in last
  assert "walltime" not in last
