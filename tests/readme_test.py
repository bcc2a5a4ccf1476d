"""Tests that what README shows is true."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_examples_run(code, capsys):
  namespace = {"__name__": "readme"}
  exec(compile(code, str(README), "exec"), namespace)
  if "action" in namespace:
    assert namespace["action"].shape == (1, 6)
    assert float(namespace["metrics"]["critic_loss"]) >= 0.0
  if "actions" in namespace:
    assert namespace["actions"].shape == (256, 6)
  if "experiment" in namespace:
    spec_factory = namespace["experiment"].environment_factory
    assert spec_factory(0).action_spec().shape == (6,)


def test_files_and_pictures_exist():
  text = README.read_text()
  for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
    assert (README.parent / path).is_file(), path
  for path in re.findall(r"`((?:acme_qsm|launchers)/[\w/.]+)`", text):
    assert (README.parent / path).exists(), path
