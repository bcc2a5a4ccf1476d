"""Tests of the CSV tables and the TensorBoard events."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records.disk import Disk


def _text(directory, label):
  return (directory / "logs" / f"{label}.csv").read_text()


def _events(directory):
  """Returns what TensorBoard shows: [(step, value)] by tag."""
  accumulator = event_accumulator.EventAccumulator(
    str(directory / "tensorboard")
  )
  accumulator.Reload()
  return {
    tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
    for tag in accumulator.Tags()["scalars"]
  }


def test_rows_reach_both_files_at_once(tmp_path):
  factory = loggers.make_logger_factory(tmp_path)
  learner = factory("learner", steps_key="learner_steps")
  learner.write({"learner_steps": 3, "loss": 0.5})
  learner.write({"learner_steps": 6, "loss": 0.25, "actor_steps": 20})
  learner.write({"loss": 0.125})
  factory("evaluator").write({"actor_steps": 20, "episode_return": 7})
  # Nothing has been closed.
  assert _text(tmp_path, "learner") == (
    "learner_steps,loss,actor_steps\n3,0.5,\n6,0.25,20\n,0.125,\n"
  )
  assert _text(tmp_path, "evaluator") == "actor_steps,episode_return\n20,7\n"
  # A step is the learner's own where there is no other; a row needs one.
  assert _events(tmp_path) == {
    "learner/learner_steps": [(3, 3.0), (20, 6.0)],
    "learner/loss": [(3, 0.5), (20, 0.25)],
    "evaluator/episode_return": [(20, 7.0)],
  }


def test_every_kind_of_scalar(tmp_path):
  values = {
    "int": 10**12,
    "float": 0.1,
    "bool": True,
    "numpy": np.float32(0.1),
    "numpy_int": np.int64(3),
    "numpy_array": np.array([2.5]),
    "jax": jnp.float32(0.1),
    "jax_int": jnp.arange(3)[2],
    "jax_bool": jnp.array(True),
    "nan": float("nan"),
    "infinite": -np.inf,
  }
  loggers.make_logger_factory(tmp_path)("a").write({"actor_steps": 1, **values})
  assert _text(tmp_path, "a").splitlines()[1] == (
    "1,1000000000000,0.1,1,0.1,3,2.5,0.1,2,1,nan,-inf"
  )
  columns = loggers.read_csv(tmp_path / "logs" / "a.csv")
  assert list(columns) == ["actor_steps", *values]
  for name, value in values.items():
    assert columns[name].dtype == np.float64
    np.testing.assert_allclose(columns[name], np.ravel(value), rtol=1e-7)
  events = _events(tmp_path)
  assert events["a/jax"] == [(1, pytest.approx(0.1))]
  assert events["a/jax_int"] == [(1, 2.0)]


@pytest.mark.parametrize(
  "value", ["text", np.zeros(2), jnp.zeros((1, 3)), None, [1, 2]]
)
def test_other_values_are_refused(tmp_path, value):
  logger = loggers.make_logger_factory(tmp_path)("a")
  with pytest.raises(ValueError, match="loss must be one number"):
    logger.write({"actor_steps": 1, "loss": value})
  assert not (tmp_path / "logs" / "a.csv").exists()


def test_new_keys_widen_the_table(tmp_path):
  logger = loggers.make_logger_factory(tmp_path)("a")
  logger.write({"actor_steps": 1, "x": 1})
  logger.write({"actor_steps": 2, "y": 2})
  logger.write({"actor_steps": 3, "x": 3})
  assert _text(tmp_path, "a") == "actor_steps,x,y\n1,1,\n2,,2\n3,3,\n"
  np.testing.assert_array_equal(
    loggers.read_csv(tmp_path / "logs" / "a.csv")["x"], [1, np.nan, 3]
  )
  assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == ["a.csv"]


def test_a_new_process_appends_and_drops_half_a_row(tmp_path):
  loggers.make_logger_factory(tmp_path)("a").write({"actor_steps": 1, "x": 1})
  path = tmp_path / "logs" / "a.csv"
  path.write_text(path.read_text() + "2,1234")
  assert list(loggers.read_csv(path)["x"]) == [1]
  loggers.make_logger_factory(tmp_path)("a").write(
    {"x": 2, "z": 3, "actor_steps": 2}
  )
  assert path.read_text() == "actor_steps,x,z\n1,1,\n2,2,3\n"


def test_instances_and_labels(tmp_path):
  factory = loggers.make_logger_factory(tmp_path)
  for instance in range(2):
    factory("actor", instance=instance).write({"actor_steps": instance})
  names = sorted(path.name for path in (tmp_path / "logs").iterdir())
  assert names == ["actor.csv", "actor_1.csv"]
  with pytest.raises(ValueError, match="label"):
    factory("../actor")


def test_a_run_that_crashed_and_was_resumed_shows_every_step_once(tmp_path):
  """As a run that saved at 30, was killed at 55 and went on from 30."""

  def run(first, last, factor):
    factory = loggers.make_logger_factory(tmp_path)
    actor, evaluator = factory("actor"), factory("evaluator")
    for step in range(first, last, 10):
      actor.write({"actor_steps": step, "x": step * factor})
      # Fewer of these: a stale one is not overwritten by a new one in time.
      if step % 20 == 0:
        evaluator.write({"actor_steps": step, "y": step * factor})

  run(10, 60, factor=1)
  csv = tmp_path / "logs" / "actor.csv"
  csv.write_text(csv.read_text() + "60,6")
  # The event file, too, ends in half a record.
  (event_file,) = (tmp_path / "tensorboard").iterdir()
  event_file.write_bytes(event_file.read_bytes()[:-7])
  assert _events(tmp_path)["evaluator/y"] == [(20, 20.0), (40, 40.0)]

  loggers.rewind(tmp_path, actor_steps=30)
  assert _text(tmp_path, "actor") == "actor_steps,x\n10,10\n20,20\n30,30\n"
  assert _text(tmp_path, "evaluator") == "actor_steps,y\n20,20\n"
  assert _events(tmp_path) == {
    "actor/x": [(10, 10.0), (20, 20.0), (30, 30.0)],
    "evaluator/y": [(20, 20.0)],
  }

  run(40, 80, factor=-1)
  assert list(loggers.read_csv(csv)["x"]) == [10, 20, 30, -40, -50, -60, -70]
  events = _events(tmp_path)
  assert events["evaluator/y"] == [(20, 20.0), (40, -40.0), (60, -60.0)]
  assert [step for step, _ in events["actor/x"]] == list(range(10, 80, 10))
  assert events["actor/x"][3:] == [(s, -s) for s in range(40, 80, 10)]


def test_rewinding_to_the_start_and_twice(tmp_path):
  factory = loggers.make_logger_factory(tmp_path)
  factory("a").write({"actor_steps": 5, "x": 1})
  loggers.rewind(tmp_path, 5)
  assert _events(tmp_path) == {"a/x": [(5, 1.0)]}
  for _ in range(2):
    loggers.rewind(tmp_path, 0)
    assert _text(tmp_path, "a") == "actor_steps,x\n"
    assert _events(tmp_path) == {"a/x": []}
  loggers.make_logger_factory(tmp_path)("a").write({"actor_steps": 5, "x": 2})
  assert _text(tmp_path, "a") == "actor_steps,x\n5,2\n"
  assert _events(tmp_path) == {"a/x": [(5, 2.0)]}


def test_rewinding_keeps_rows_without_steps(tmp_path):
  loggers.rewind(tmp_path, 3)
  assert list(tmp_path.iterdir()) == []
  factory = loggers.make_logger_factory(tmp_path)
  factory("a").write({"x": 1})
  factory("b").write({"x": 1})
  factory("b").write({"x": 2, "actor_steps": 9})
  loggers.rewind(tmp_path, 3)
  assert _text(tmp_path, "a") == "x\n1\n"
  assert _text(tmp_path, "b") == "x,actor_steps\n1,\n"


@pytest.mark.parametrize("content", [None, "", "x,y\n", "x,y\n1"])
def test_empty_tables(tmp_path, content):
  path = tmp_path / "a.csv"
  if content is not None:
    path.write_text(content)
  columns = loggers.read_csv(path)
  assert [(name, len(columns[name])) for name in columns] == (
    [("x", 0), ("y", 0)] if content else []
  )


def _fail(*unused_arguments):
  raise OSError("No space left on device")


def test_rows_that_cannot_be_written_are_dropped():
  rows, said = [], []
  inner = types.SimpleNamespace(close=_fail)
  # At first, not even the logger can be made.
  makers = [_fail, lambda: inner]
  disk = Disk(said.append)
  logger = loggers.LossyLogger("a.csv", lambda: makers.pop(0)(), disk)
  inner.write = _fail
  for step in range(3):
    logger.write({"steps": step})
  assert said == [
    "Warning: a.csv cannot be written: No space left on device. The run goes "
    "on without logs and checkpoints; the last checkpoint stays."
  ]
  inner.write = rows.append
  for step in (3, 4):
    logger.write({"steps": step})
  assert rows == [{"steps": 3}, {"steps": 4}]
  assert said[1:] == ["Logs and checkpoints can be written again."]
  inner.write = _fail
  logger.write({"steps": 5})
  logger.close()
  assert len(said) == 3


def test_what_is_said_of_several_files(caplog):
  disk = Disk()
  assert not disk.attempt("a", _fail)
  assert not disk.attempt("b", _fail)
  # There is room for one, but not for all.
  assert disk.attempt("a", list)
  assert not disk.attempt("b", _fail)
  assert len(caplog.records) == 1
  assert disk.attempt("b", list)
  assert [record.message[:24] for record in caplog.records] == [
    "Warning: a cannot be wri",
    "Logs and checkpoints can",
  ]
  assert str(disk.error) == "No space left on device"
  # Nor is a log waited for that is closed.
  loggers.LossyLogger("c", _fail, disk).write({})
  disk.attempt("b", _fail)
  loggers.LossyLogger("c", _fail, disk).close()
  assert disk.attempt("b", list)
  assert len(caplog.records) == 4


def test_a_wrong_row_is_still_an_error(tmp_path):
  logger = loggers.LossyLogger(
    "actor", lambda: loggers.make_logger_factory(tmp_path)("actor"), Disk()
  )
  with pytest.raises(ValueError, match="must be one number"):
    logger.write({"steps": "many"})
