"""Tests of the checkpoints: what goes in comes out, and never a half of it."""

import errno
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import specs

import acme_qsm
from acme_qsm import types
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records import disk
from tests.small_disk import small_disk


class Point(NamedTuple):
  """Something with named leaves."""

  x: jax.Array
  y: jax.Array


class _Pickled:
  """Loads as the result of running what is in the pickle."""

  def __reduce__(self):
    return (os.mkdir, ("pickle_ran",))


def _assert_bit_equal(actual, expected):
  chex.assert_trees_all_equal_structs(actual, expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.tobytes() == b.tobytes()


def _names(directory):
  return sorted(path.name for path in directory.iterdir())


def _save(checkpointer, step):
  return checkpointer.save(step, {"item": {"x": np.full(9, step)}}, {"n": step})


def _latest(directory):
  checkpoint = checkpointing.Checkpointer(directory).latest()
  assert checkpoint is not None
  return checkpoint


def _load(checkpoint):
  return checkpoint.load("item", {"x": np.zeros(9, int)})["x"]


def test_every_kind_of_leaf_comes_back(tmp_path):
  params = {"mlp/~/linear_0": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}}
  tree = {
    "params": params,
    "optimizer": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
    "point": Point(jnp.arange(3), jnp.array(2.5, jnp.float16)),
    "raw_key": jax.random.PRNGKey(1),
    "array": np.arange(6.0).reshape(2, 3),
    "numpy_scalar": np.float64(0.1),
    "numbers": (3, 0.1, True, [None, ()]),
    "empty": jnp.zeros((0, 4), jnp.int8),
  }
  checkpointing.Checkpointer(tmp_path).save(7, {"tree": tree}, {"a": [1, "b"]})
  checkpoint = _latest(tmp_path)
  assert (checkpoint.step, checkpoint.metadata) == (7, {"a": [1, "b"]})
  template = jax.tree.map(lambda x: x * 0, tree)
  template["numbers"] = (0, 0.0, False, [None, ()])
  loaded = checkpoint.load("tree", template)
  _assert_bit_equal(loaded, tree)
  for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree), strict=True):
    assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
    assert isinstance(b, jax.Array) or type(a) is type(b)


def test_typed_keys_come_back_as_keys(tmp_path):
  keys = {
    "rbg": jax.random.key(3, impl="rbg"),
    "many": jax.random.split(jax.random.key(4)),
  }
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(0, {"keys": keys}, {})
  template = {
    "rbg": jax.random.key(0, impl="rbg"),
    "many": jax.random.split(jax.random.key(0)),
  }
  loaded = _latest(tmp_path).load("keys", template)
  assert jax.random.normal(loaded["rbg"]) == jax.random.normal(keys["rbg"])
  assert jax.random.normal(loaded["many"][1]) == jax.random.normal(
    keys["many"][1]
  )


def _make_batch(seed):
  rng = np.random.default_rng(seed)
  observation, next_observation = rng.normal(size=(2, 8, 3))
  batch = acme_qsm.Transition(
    observation=observation,
    action=np.tanh(rng.normal(size=(8, 2))),
    reward=rng.normal(size=8),
    discount=np.ones(8),
    next_observation=next_observation,
  )
  return jax.tree.map(np.float32, batch)


def test_training_goes_on_bit_for_bit(tmp_path, small_config):
  spec = acme_qsm.EnvironmentSpec(
    observations=specs.Array((3,), np.float32),
    actions=specs.BoundedArray((2,), np.float32, -1.0, 1.0),
  )
  networks = acme_qsm.make_networks(spec, small_config)
  core = acme_qsm.make_learner_core(networks, small_config)
  step = jax.jit(core.step)
  batches = [_make_batch(seed) for seed in range(6)]
  state = core.init(jax.random.key(0))
  for batch in batches[:3]:
    state, _ = step(state, batch)
  checkpointing.Checkpointer(tmp_path).save(3, {"learner": state}, {})
  checkpoint = _latest(tmp_path)
  other = core.init(jax.random.key(1))
  loaded = checkpoint.load("learner", other)
  shapes = jax.eval_shape(core.init, jax.random.key(1))
  from_shapes = checkpoint.load("learner", shapes._replace(key=other.key))
  for batch in batches[3:]:
    state, metrics = step(state, batch)
    loaded, loaded_metrics = step(loaded, batch)
    from_shapes, _ = step(from_shapes, batch)
    _assert_bit_equal(loaded_metrics, metrics)
  for resumed in (loaded, from_shapes):
    _assert_bit_equal(
      resumed._replace(key=jax.random.key_data(resumed.key)),
      state._replace(key=jax.random.key_data(state.key)),
    )


def test_what_is_loaded_may_be_donated(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(0, {"x": jnp.arange(1000.0)}, {})
  loaded = _latest(tmp_path).load("x", jnp.zeros(1000))
  doubled = jax.jit(lambda x: 2 * x, donate_argnums=0)(loaded)
  np.testing.assert_array_equal(doubled, 2 * np.arange(1000.0))


def test_no_checkpoint_yet(tmp_path):
  assert checkpointing.Checkpointer(tmp_path / "none").latest() is None
  (tmp_path / ".tmp_step_000000000001").mkdir()
  (tmp_path / "other").mkdir()
  assert checkpointing.Checkpointer(tmp_path).latest() is None


@pytest.mark.parametrize("max_to_keep", [1, 3])
def test_keeps_the_newest_and_nothing_of_what_was_killed(tmp_path, max_to_keep):
  stale = tmp_path / ".tmp_step_000000000011"
  stale.mkdir()
  (stale / "big").write_text("half")
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep)
  for step in (1, 2, 10, 11):
    path = _save(checkpointer, step)
  steps = [1, 2, 10, 11][-max_to_keep:]
  assert _names(tmp_path) == [f"step_{step:012d}" for step in steps]
  assert _names(path) == ["item.npz", "metadata.json"]


def test_the_same_step_again_replaces(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)
  for value in range(3):
    checkpointer.save(4, {"item": value}, {"value": value})
    latest = _latest(tmp_path)
    assert latest.metadata == {"value": value}
    assert latest.load("item", 0) == value
    assert len(_names(tmp_path)) == 1


def test_a_killed_replacement_leaves_one(tmp_path, monkeypatch):
  """Whatever call a second save of a step dies in, one of the two is there."""
  checkpointer = checkpointing.Checkpointer(tmp_path)
  _save(checkpointer, 4)
  reached = []
  for owner, name in ((Path, "rename"), (os, "unlink"), (os, "rmdir")):
    original = getattr(owner, name)

    def check(*args, original=original, **kwargs):
      before = _latest(tmp_path)
      original(*args, **kwargs)
      reached.append((before.step, _latest(tmp_path).step))

    monkeypatch.setattr(owner, name, check)
  _save(checkpointer, 4)
  # The new one appears; the old one is hidden and loses its files.
  assert len(reached) == 5
  assert set(reached) == {(4, 4)}


def test_saving_from_an_earlier_step_drops_the_abandoned_future(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)
  _save(checkpointer, 100)
  (_save(checkpointer, 200) / "item.npz").write_bytes(b"broken")
  assert _latest(tmp_path).step == 100
  _save(checkpointer, 150)
  assert _names(tmp_path) == ["step_000000000100", "step_000000000150"]
  assert _latest(tmp_path).step == 150


def _flip_a_bit(path):
  data = bytearray((path / "item.npz").read_bytes())
  data[len(data) // 2] ^= 1
  (path / "item.npz").write_bytes(data)


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (lambda path: os.truncate(path / "item.npz", 100), "item.npz is damaged"),
    (_flip_a_bit, "item.npz is damaged"),
    (lambda path: (path / "metadata.json").unlink(), "is incomplete"),
    (lambda path: os.truncate(path / "metadata.json", 40), "is incomplete"),
    (lambda path: (path / "metadata.json").write_text("[1]"), "is incomplete"),
    (lambda path: (path / "chunks").unlink(), "No such file .*chunks"),
  ],
)
def test_a_broken_checkpoint_is_skipped(tmp_path, caplog, damage, reason):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)

  def write_extra(path, previous):
    (path / "chunks").write_text("transitions")

  paths = [
    checkpointer.save(n, {"item": {"x": np.full(9, n)}}, {}, write_extra)
    for n in (1, 2)
  ]
  damage(paths[1])
  with caplog.at_level(logging.WARNING):
    checkpoint = _latest(tmp_path)
  assert checkpoint.step == 1
  np.testing.assert_array_equal(_load(checkpoint), np.full(9, 1))
  assert str(paths[1]) in caplog.text
  assert re.search(reason, caplog.text)

  damage(paths[0])
  with pytest.raises(checkpointing.CheckpointError, match=reason):
    _latest(tmp_path)


def _have_reads_fail(file):
  # A file whose start cannot be read: EIO, as of a bad disk.
  file.unlink()
  file.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("name", ["item.npz", "metadata.json"])
def test_what_cannot_be_read_now_is_not_taken_for_broken(tmp_path, name):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=3)
  paths = [_save(checkpointer, step) for step in (1, 2)]
  content = (paths[1] / name).read_bytes()
  _have_reads_fail(paths[1] / name)
  # An older one is not gone on from.
  with pytest.raises(
    checkpointing.UnreadableError,
    match=f"{paths[1]} cannot be read.*Input/output error",
  ):
    checkpointer.latest()
  assert [tmp_path / each for each in _names(tmp_path)] == paths
  (paths[1] / name).unlink()
  (paths[1] / name).write_bytes(content)
  assert _latest(tmp_path).step == 2


def test_a_folder_of_checkpoints_that_cannot_be_read_is_not_empty(tmp_path):
  (tmp_path / "checkpoints").write_text("")
  checkpointer = checkpointing.Checkpointer(tmp_path / "checkpoints")
  with pytest.raises(
    checkpointing.CheckpointError, match=r"cannot be read: .*Not a directory"
  ):
    checkpointer.latest()


def test_a_save_does_without_links_to_what_cannot_be_read(tmp_path):
  """It could not tell whether what it links has gone bad since."""
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)
  first = checkpointer.save(1, {}, {}, _link_or_write)
  _have_reads_fail(first / "metadata.json")
  with pytest.raises(OSError, match="Input/output error"):
    checkpointer.save(2, {}, {}, _link_or_write)
  assert _names(tmp_path) == [first.name]


@pytest.mark.parametrize(
  ("template", "message"),
  [
    ({"a": np.zeros(2), "b": 0}, r"holds no leaf \"\['b'\]\""),
    ({}, r"a leaf that the template lacks: \"\['a'\]\""),
    ({"a": np.zeros(3)}, r"\"\['a'\]\".*expected float64 \(3,\)"),
    ({"a": jnp.zeros(2)}, r"\"\['a'\]\".*expected float32 .*float64"),
    ({"a": 0.0}, r"\"\['a'\]\".*expected float64 \(\)"),
    ({"a": jax.random.key(0)}, r"\"\['a'\]\".*expected uint32"),
  ],
)
def test_a_template_that_differs_is_refused(tmp_path, template, message):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(1, {"item": {"a": np.ones(2)}}, {})
  with pytest.raises(checkpointing.CheckpointError, match=message):
    _latest(tmp_path).load("item", template)


@pytest.mark.parametrize("saved", [3, np.int32(3), np.int64(3)])
def test_an_integer_is_no_float(tmp_path, saved):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(1, {"item": saved}, {})
  # Of another size it still is one.
  assert _latest(tmp_path).load("item", 0) == 3
  for template in (0.0, True):
    with pytest.raises(checkpointing.CheckpointError, match="expected"):
      _latest(tmp_path).load("item", template)


def test_an_unknown_item_is_refused(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(1, {"item": 3}, {})
  checkpoint = _latest(tmp_path)
  with pytest.raises(checkpointing.CheckpointError, match="no item 'other'"):
    checkpoint.load("other", 3)
  # Whose file cannot be read now is not without one.
  (checkpoint.path / "other.npz").symlink_to("/proc/self/mem")
  with pytest.raises(
    checkpointing.UnreadableError, match=r"cannot be read: .*Input/output"
  ):
    checkpoint.load("other", 3)


def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  checkpointer = checkpointing.Checkpointer(tmp_path / "checkpoints")
  path = _save(checkpointer, 1)
  # Even with a manifest that fits.
  evil = np.array([_Pickled()], dtype=object)
  np.savez(path / "item.npz", **{"['x']": evil})
  content = json.loads((path / "metadata.json").read_text())
  content["manifest"]["item.npz"] = checkpointing._describe_file(
    path / "item.npz"
  )
  (path / "metadata.json").write_text(json.dumps(content))
  checkpoint = _latest(tmp_path / "checkpoints")
  with pytest.raises(checkpointing.CheckpointError, match=r"\['x'\].*pickle"):
    _load(checkpoint)
  assert not (tmp_path / "pickle_ran").exists()
  # It would have run, had it been loaded.
  np.load(path / "item.npz", allow_pickle=True)["['x']"]
  assert (tmp_path / "pickle_ran").exists()


def _link_or_write(folder, previous):
  if previous is None:
    (folder / "extra").write_text("content")
  else:
    (folder / "extra").hardlink_to(previous / "extra")


def _manifest(path):
  return json.loads((path / "metadata.json").read_text())["manifest"]


def test_a_linked_files_hash_is_that_of_what_was_written(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)
  first = checkpointer.save(1, {}, {}, _link_or_write)
  second = checkpointer.save(2, {}, {}, _link_or_write)
  assert (first / "extra").samefile(second / "extra")
  assert _manifest(first) == _manifest(second)
  # What has gone bad since is not taken for good.
  (second / "extra").write_text("CONTENT")
  third = checkpointer.save(3, {}, {}, _link_or_write)
  assert _manifest(third) == _manifest(second)
  with pytest.raises(checkpointing.CheckpointError, match="extra is damaged"):
    checkpointing.Checkpoint(third)


def test_what_is_linked_to_a_broken_checkpoint_is_read(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  first = checkpointer.save(1, {}, {}, _link_or_write)
  manifest = _manifest(first)
  os.truncate(first / "metadata.json", 40)
  second = checkpointer.save(2, {}, {}, _link_or_write)
  assert _manifest(second) == manifest
  assert _latest(tmp_path).path == second


def test_a_broken_checkpoint_counts_for_nothing_in_later_saves(tmp_path):
  checkpointer = checkpointing.Checkpointer(tmp_path, max_to_keep=2)
  first = checkpointer.save(1, {}, {}, _link_or_write)
  broken = checkpointer.save(
    2, {}, {}, lambda folder, _: (folder / "extra").write_text("content")
  )
  (broken / "extra").write_text("CONTENT")
  assert checkpointer.latest().path == first

  third = checkpointer.save(3, {}, {}, _link_or_write)
  # The one that the run went on from stays, and is what is linked to.
  assert _names(tmp_path) == [first.name, third.name]
  assert (third / "extra").samefile(first / "extra")
  assert _latest(tmp_path).path == third


def _fail_after_half(path, previous):
  (path / "half").write_text("half")
  raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
  ("arguments", "error", "message"),
  [
    (
      {"items": {"a": {"w": jnp.array([1, jnp.nan])}}},
      types.NonFiniteError,
      r"\['w'\].*'a'",
    ),
    ({"items": {"a": {"w": -np.inf}}}, types.NonFiniteError, r"\['w'\].*'a'"),
    ({"items": {"a": {"w": "text"}}}, TypeError, r"\['w'\].*'a'"),
    ({"items": {"a": {"w": object()}}}, TypeError, r"\['w'\].*'a'"),
    ({"items": {"../a": 0}}, ValueError, "item's name"),
    ({"metadata": {"a": float("nan")}}, ValueError, "JSON"),
    ({"metadata": {"a": object()}}, TypeError, "JSON"),
    ({"step": -1}, ValueError, "at least 0"),
    ({"write_extra": _fail_after_half}, OSError, "No space left"),
  ],
)
def test_a_failed_save_leaves_all_as_it_was(
  tmp_path, arguments, error, message
):
  checkpointer = checkpointing.Checkpointer(tmp_path)
  _save(checkpointer, 1)
  with pytest.raises(error, match=message):
    checkpointer.save(
      **{"step": 2, "items": {"b": 1}, "metadata": {}, **arguments}
    )
  assert _names(tmp_path) == ["step_000000000001"]
  np.testing.assert_array_equal(_load(_latest(tmp_path)), np.full(9, 1))
  _save(checkpointer, 2)
  assert _latest(tmp_path).step == 2


def test_a_full_disk_leaves_all_as_it_was(tmp_path):
  with small_disk(tmp_path / "disk", "256k") as folder:
    checkpointer = checkpointing.Checkpointer(folder)
    _save(checkpointer, 1)
    with pytest.raises(OSError, match="No space left"):
      checkpointer.save(2, {"item": np.zeros(100_000)}, {})
    assert _names(folder) == ["step_000000000001"]
    np.testing.assert_array_equal(_load(_latest(folder)), np.full(9, 1))
    path = folder / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
      disk.write_atomically(path, bytes(1_000_000))
    assert path.read_text() == "old"
    assert _names(folder) == ["file", "step_000000000001"]


# Forks a process per line it reads (importing again would take its time), which
# saves until it is killed, and tells its id and the steps it has saved.
_SAVE_FOREVER = """
import os, sys
import numpy as np
from acme_qsm.experiments.records import checkpointing

def save_forever():
  checkpointer = checkpointing.Checkpointer(sys.argv[1])
  latest = checkpointer.latest()
  step = 0 if latest is None else latest.step
  while True:
    step += 1
    def write_extra(path, previous):
      (path / "replay").mkdir()
      (path / "replay" / "chunk").write_text(str(step) * 10_000)
    tree = {"a": np.full(50_000, step), "b": step}
    checkpointer.save(step, {"tree": tree}, {"step": step}, write_extra)
    print("saved", step, flush=True)

for line in sys.stdin:
  pid = os.fork()
  if pid == 0:
    save_forever()
  print("pid", pid, flush=True)
  os.waitpid(pid, 0)
  print("dead", flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
  rng = random.Random(0)
  temporaries = 0
  last_step = 0
  with subprocess.Popen(
    [sys.executable, "-c", _SAVE_FOREVER, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as server:
    assert server.stdin is not None
    assert server.stdout is not None
    for _ in range(10):
      print("start", file=server.stdin, flush=True)
      pid, saved = None, last_step
      while pid is None or saved < last_step + 2:
        word, number = server.stdout.readline().split()
        if word == "pid":
          pid = int(number)
        else:
          saved = int(number)
      # A random moment within the next save or so, which takes some 10 ms.
      with pytest.raises(subprocess.TimeoutExpired):
        server.wait(rng.uniform(0.0, 0.02))
      os.kill(pid, signal.SIGKILL)
      while (line := server.stdout.readline()) != "dead\n":
        saved = int(line.split()[1])
      temporaries += any(name.startswith(".") for name in _names(tmp_path))

      checkpoint = _latest(tmp_path)
      assert checkpoint.step in (saved, saved + 1)
      last_step = checkpoint.step
      assert checkpoint.metadata == {"step": last_step}
      tree = checkpoint.load("tree", {"a": np.zeros(50_000, int), "b": 0})
      assert tree["b"] == last_step
      np.testing.assert_array_equal(tree["a"], last_step)
      extra = (checkpoint.path / "replay" / "chunk").read_text()
      assert extra == str(last_step) * 10_000
    server.stdin.close()
  # The kills did come in the middle of saving.
  assert temporaries >= 3


def test_max_to_keep_is_positive(tmp_path):
  with pytest.raises(ValueError, match="max_to_keep"):
    checkpointing.Checkpointer(tmp_path, max_to_keep=0)
