"""Tests of how a work directory is claimed."""

import dataclasses
import json
import subprocess
import sys

import pytest

import acme_qsm
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments.records import workdir


def _open(path, values, defaults=None, **kwargs):
  config = CheckpointingConfig(directory=str(path), add_uid=False, **kwargs)
  description = workdir.Description(values, defaults or {})
  return workdir.open_workdir(config, description)


def test_a_new_directory_gets_the_description_and_the_same_run_may_come_back(
  tmp_path,
):
  path = tmp_path / "a" / "b"
  for _ in range(2):
    opened = _open(path, {"task": "x", "sizes": (1, 2)})
    assert opened.path == path
    opened.close()
    assert json.loads((path / "config.json").read_text()) == {
      "format_version": 3,
      "library_version": acme_qsm.__version__,
      "task": "x",
      "sizes": [1, 2],
    }


def test_another_run_may_not(tmp_path):
  _open(tmp_path, {"task": "x", "config": {"scale": 1.0, "n": 1}}).close()
  with pytest.raises(workdir.WorkdirError) as raised:
    _open(tmp_path, {"task": "y", "config": {"scale": 2.0, "n": 1}})
  message = str(raised.value)
  assert "its task is 'x', not 'y'" in message
  assert "its config.scale is 1.0, not 2.0" in message
  assert "config.n" not in message


def test_a_setting_that_an_old_run_lacks_has_its_default(tmp_path):
  _open(tmp_path, {"task": "x", "config": {"scale": 1.0}}).close()
  new = {"task": "x", "config": {"scale": 1.0, "speed": [3]}}
  with pytest.raises(
    workdir.WorkdirError, match=r"its config\.speed is \[4\], "
  ):
    _open(tmp_path, new, {"config": {"speed": [4]}})
  with pytest.raises(workdir.WorkdirError, match=r"its config\.speed is None"):
    _open(tmp_path, new, {"config": {"scale": 1.0}})
  _open(tmp_path, new, {"config": {"scale": 2.0, "speed": [3]}}).close()
  # From now on it has a value of its own.
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["config"] == {"scale": 1.0, "speed": [3]}
  _open(tmp_path, new, {"config": {"speed": [4]}}).close()


def test_a_setting_of_another_release_is_refused(tmp_path):
  _open(tmp_path, {"task": "x", "config": {"scale": 1.0, "n": 3}}).close()
  before = (tmp_path / "config.json").read_text()
  with pytest.raises(
    workdir.WorkdirError,
    match=r"its config\.n is 3, a setting that this release does not know",
  ):
    _open(tmp_path, {"task": "x", "config": {"scale": 1.0}})
  assert (tmp_path / "config.json").read_text() == before


def test_another_agent_is_named_and_nothing_of_its_settings(tmp_path):
  _open(tmp_path, {"agent": "a", "config": {"x": 1}}).close()
  with pytest.raises(workdir.WorkdirError) as raised:
    _open(tmp_path, {"agent": "b", "config": {"y": 1}})
  assert "its agent is 'a', not 'b'. " in str(raised.value)


def test_other_peoples_files_are_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("")
  with pytest.raises(workdir.WorkdirError, match=r"thesis\.tex"):
    _open(tmp_path, {})
  assert not (tmp_path / "config.json").exists()


def test_a_path_that_cannot_be_a_directory(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(workdir.WorkdirError, match="or written to"):
    _open(tmp_path / "file" / "run", {})


def test_a_directory_in_use_by_another_process(tmp_path):
  _open(tmp_path, {}).close()
  code = (
    "import fcntl, sys; f = open(sys.argv[1], 'w');"
    "fcntl.flock(f, fcntl.LOCK_EX); print('locked', flush=True);"
    "sys.stdin.read()"
  )
  with subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path / ".lock")],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as process:
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    with pytest.raises(workdir.WorkdirError, match="in use"):
      _open(tmp_path, {})
    process.stdin.close()
  _open(tmp_path, {}).close()


def test_add_uid_gives_every_run_a_folder_of_its_own(tmp_path):
  config = CheckpointingConfig(directory=str(tmp_path), add_uid=True)
  first, second = (
    workdir.open_workdir(config, workdir.Description({"task": task}))
    for task in "xy"
  )
  assert first.path != second.path
  assert first.path.parent == second.path.parent == tmp_path


@pytest.mark.parametrize(
  ("content", "message"), [("{", "not JSON"), ("[1]", "describes no run")]
)
def test_a_config_file_that_is_none(tmp_path, content, message):
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(workdir.WorkdirError, match=message):
    _open(tmp_path, {})


@pytest.mark.parametrize("name", ["config.json", "run_id"])
def test_a_file_that_cannot_be_read_is_no_other_run_s(tmp_path, name):
  _open(tmp_path, {"task": "x"}).close()
  (tmp_path / name).unlink()
  (tmp_path / name).symlink_to("/proc/self/mem")
  with pytest.raises(
    workdir.WorkdirError, match=r"cannot be read or written to: .*Input/output"
  ):
    _open(tmp_path, {"task": "x"})
  assert (tmp_path / name).is_symlink()


@dataclasses.dataclass
class _Owed:
  needed: int
  sizes: tuple[int, ...] = (1, 2)
  others: dict = dataclasses.field(default_factory=lambda: {"a": 1})


def test_a_run_s_description_has_the_defaults_of_its_configuration(
  make_experiment,
):
  @dataclasses.dataclass
  class Builder:
    config: object

  experiment = make_experiment(10)
  for config, wrap in (
    (_Owed(3, (7,), {"a": 8}), lambda fields: fields),
    # As those of a builder of Acme's are.
    ({"config": _Owed(3, (7,), {"a": 8})}, lambda fields: {"config": fields}),
  ):
    described = workdir.describe_run(
      dataclasses.replace(experiment, builder=Builder(config)),
      acme_qsm.EnvironmentSpec(observations={}, actions={}),
    )
    assert described.values["agent"] == "Builder"
    assert described.values["config"] == wrap(
      {"needed": 3, "sizes": [7], "others": {"a": 8}}
    )
    assert described.defaults["config"] == wrap(
      {"sizes": [1, 2], "others": {"a": 1}}
    )


def test_functions_are_described_alike_in_every_process():
  described = workdir.describe({"schedule": lambda step: step})["schedule"]
  assert "<lambda>" in described
  assert " at 0x" not in described


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"max_to_keep": 0}, "max_to_keep must be at least 1, got 0"),
    ({"time_delta_minutes": 0.0}, "time_delta_minutes must be positive"),
  ],
)
def test_wrong_checkpointing_config(kwargs, message):
  with pytest.raises(ValueError, match=message):
    CheckpointingConfig(**kwargs)
