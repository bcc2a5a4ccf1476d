"""Tests of what is kept of JAX's compilations."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]
CODE = """
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from acme_qsm.experiments.surroundings import compilation_cache

print(compilation_cache.use())
if sys.argv[1:] == ["compile"]:
  def program(x):
    # So much that compiling it takes a while on any machine.
    for i in range(40):
      x = jnp.sort(jnp.tanh(x @ x + i), axis=i % 2)
    return x
  jax.jit(program)(jnp.eye(50))
else:
  subprocess.run([sys.executable, "-c", '''
import jax
print(jax.config.jax_compilation_cache_dir)
'''], check=True)
"""


def run(argument, **variables):
  environment = {
    name: value for name, value in os.environ.items() if "JAX_" not in name
  }
  done = subprocess.run(
    [sys.executable, "-c", CODE, argument],
    cwd=ROOT,
    env={**environment, **variables},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


def test_programs_are_kept_in_the_user_s_cache_folder(tmp_path):
  variables = {"XDG_CACHE_HOME": str(tmp_path)}
  (folder,) = run("compile", **variables)
  assert pathlib.Path(folder).is_relative_to(tmp_path / "acme_qsm")
  files = list(pathlib.Path(folder).glob("jit_program-*-cache"))
  assert len(files) == 1
  # Found again: it is kept once.
  assert run("compile", **variables) == [folder]
  assert list(pathlib.Path(folder).glob("jit_program-*-cache")) == files
  # Whoever was killed while it wrote has left a part: it is compiled anew.
  files[0].write_bytes(files[0].read_bytes()[:100])
  assert run("compile", **variables) == [folder]


def test_processes_that_are_started_keep_theirs_there(tmp_path):
  found = run("start", XDG_CACHE_HOME=str(tmp_path))
  assert found[0] == found[1]


def test_jax_s_own_setting_comes_first(tmp_path):
  found = run("start", JAX_COMPILATION_CACHE_DIR=str(tmp_path))
  assert found == ["None", str(tmp_path)]
