"""What lets dm-acme 0.4.0 import and run, each in a Python of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

import acme_qsm

pytestmark = pytest.mark.acme


def run_python(code, **variables):
  environment = {
    name: value
    for name, value in os.environ.items()
    if name != "TF_CPP_MIN_LOG_LEVEL"
  }
  return subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    env={**environment, **variables},
    # Where this very package was found.
    cwd=pathlib.Path(acme_qsm.__file__).parents[1],
  )


def test_acme_imports_and_says_nothing():
  result = run_python(
    """
import acme_qsm.acme_compat
import acme.agents.jax.sac
import acme.wrappers
import jax
import jax.numpy as jnp
assert jax.tree_map(lambda x, y: x + y, {"a": 1}, {"a": 2}) == {"a": 3}
assert jax.tree_multimap(lambda x, y: x + y, [1], [2]) == [3]
assert isinstance(jnp.zeros(1), jnp.DeviceArray)
assert isinstance(jax.devices()[0], jax.xla.Device)
"""
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout == ""
  assert "Gym" not in result.stderr
  assert "cpu_feature_guard" not in result.stderr


def test_only_what_is_missing_is_set():
  result = run_python(
    """
import jax
import jax.numpy as jnp
import reverb
mine = object()
jax.tree_map = mine
jnp.DeviceArray = mine
jax.xla = type("xla", (), {"Device": mine})
before = dict(vars(jax)), dict(vars(jax.tree_util)), dict(vars(jnp))

import acme_qsm.acme_compat
import os
assert jax.tree_map is mine
assert jnp.DeviceArray is mine
assert jax.xla.Device is mine
assert jax.xla.DeviceArray is jax.Array
for module, names in zip((jax, jax.tree_util, jnp), before):
  for name, value in names.items():
    assert vars(module)[name] is value, (module, name)
assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"

# Twice is as once.
import importlib
writer = reverb.Client.trajectory_writer
jax_names = dict(vars(jax))
importlib.reload(acme_qsm.acme_compat)
assert reverb.Client.trajectory_writer is writer
assert vars(jax) == jax_names

# Reverb takes the argument that Acme passes, and those that it has itself.
server = reverb.Server([reverb.Table.queue("table", 2)], port=None)
client = reverb.Client(f"localhost:{server.port}")
writer = client.trajectory_writer(2, get_signature_timeout_ms=1000)
writer.append([1.0])
writer.create_item("table", 1.0, writer.history[0][-1:])
writer.flush()
writer = client.trajectory_writer(num_keep_alive_refs=1)
assert client.server_info()["table"].current_size == 1
server.stop()
""",
    TF_CPP_MIN_LOG_LEVEL="1",
  )
  assert result.returncode == 0, result.stderr
