"""What a launcher settles around its work, as its children see it."""

import os
import subprocess
import sys

import jax
import pytest

from acme_qsm.experiments.surroundings import launcher

CHILD = "import os; print(os.environ.get('JAX_PLATFORMS'))"


@pytest.mark.parametrize(
  ("platforms", "expected"),
  [
    ("cuda", "cuda,cpu"),
    ("tpu,cuda", "tpu,cuda,cpu"),
    ("cpu", "cpu"),
    ("cpu,cuda", "cpu,cuda"),
    ("", ""),
    (None, None),
  ],
)
def test_jax_has_a_cpu_beside_what_it_is_told_of(
  platforms, expected, monkeypatch
):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  if platforms is not None:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
  configured = jax.config.jax_platforms
  with launcher.settled():
    child = subprocess.run(
      [sys.executable, "-S", "-c", CHILD], capture_output=True, text=True
    )
    assert child.stdout == f"{expected}\n"
    changed = expected != platforms
    assert jax.config.jax_platforms == (expected if changed else configured)
  assert os.environ.get("JAX_PLATFORMS") == platforms
  assert jax.config.jax_platforms == configured
