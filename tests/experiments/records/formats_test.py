"""Tests of what says its format, and is refused if it has another one."""

import json
import pathlib
import re

import pytest

import acme_qsm
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records import workdir


def test_the_library_s_version_is_that_of_the_package():
  text = (pathlib.Path(__file__).parents[3] / "pyproject.toml").read_text()
  (version,) = re.findall('^version = "(.*)"$', text, re.MULTILINE)
  assert acme_qsm.__version__ == version


def _change(file, **content):
  found = {**json.loads(file.read_text()), **content}
  file.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


@pytest.mark.parametrize(
  ("written", "message"),
  [
    ({"format_version": 99, "library_version": "7.8"}, r"99; .* it \(7\.8\)"),
    ({"format_version": 2, "library_version": None}, r"2; .*\(an older one\)"),
    ({"format_version": None, "library_version": None}, r"None; "),
  ],
)
def test_another_format_is_refused_and_stays_as_it_is(
  tmp_path, written, message
):
  config = CheckpointingConfig(directory=str(tmp_path), add_uid=False)
  description = workdir.Description({"task": "x"})
  workdir.open_workdir(config, description).close()
  checkpointer = checkpointing.Checkpointer(tmp_path / "checkpoints", 2)
  for step in (1, 2):
    newest = checkpointer.save(step, {"item": 3}, {})
  metadata = json.loads((newest / "metadata.json").read_text())
  assert metadata["format_version"] == 3
  assert metadata["library_version"] == acme_qsm.__version__
  files = tmp_path / "config.json", newest / "metadata.json"
  for file in files:
    _change(file, **written)
  before = [file.read_text() for file in files]
  message = rf"{{}} has format version {message}"
  with pytest.raises(workdir.WorkdirError, match=message.format(files[0])):
    workdir.open_workdir(config, description)
  # The one before it is not gone on from.
  with pytest.raises(
    checkpointing.CheckpointError, match=message.format(newest)
  ):
    checkpointer.latest()
  assert [file.read_text() for file in files] == before
