"""The embedded replay: what is drawn, what is kept, what comes back."""

import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from acme_qsm.experiments.records.checkpointing import Checkpointer
from acme_qsm.replay import embedded
from acme_qsm.replay import embedded_files
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.embedded import Sample
from acme_qsm.replay.pacing import Pace
from acme_qsm.types import NonFiniteError
from tests.small_disk import small_disk

PACE = Pace(samples_per_insert=8.0, min_size=4, middle=32.0, half_width=100.0)


def make_replay(max_size=10, row_size=3, seed=0, extras=()):
  return EmbeddedReplay(row_size, max_size, PACE, seed, extras=extras)


def rows_of(begin, end, row_size=3):
  """Rows that tell which they are: [number, number + 0.5, ...]."""
  numbers = np.arange(begin, end, dtype=np.float32)[:, np.newaxis]
  return numbers + 0.5 * np.arange(row_size, dtype=np.float32)


def insert(replay, begin, end, row_size=3):
  replay.insert(rows_of(begin, end, row_size))


def assert_holds(replay, begin, end, row_size=3):
  """Asserts that replay holds the rows of these numbers and no others."""
  assert replay.size() == end - begin
  np.testing.assert_array_equal(replay.rows(), rows_of(begin, end, row_size))


def restore(folder, **kwargs):
  replay = make_replay(**kwargs)
  replay.restore(folder)
  return replay


@pytest.fixture
def small_files(monkeypatch):
  """Files of four rows each."""
  monkeypatch.setattr(embedded_files, "_FILE_BYTES", 4 * 3 * 4)


def test_what_is_inserted_is_drawn():
  replay = make_replay()
  assert replay.client is replay
  insert(replay, 0, 1)
  insert(replay, 1, 4)
  replay.insert(np.zeros((0, 3)))
  assert (replay.num_inserts(), replay.num_samples()) == (4, 0)
  sample = replay.sample(5)
  assert sample.data.dtype == np.float32
  np.testing.assert_array_equal(sample.data, rows_of(0, 4)[sample.indices])
  assert replay.num_samples() == 5
  # What was drawn stays when it is overwritten.
  data = sample.data.copy()
  insert(replay, 4, 14)
  replay.sample(8)
  np.testing.assert_array_equal(sample.data, data)


@pytest.mark.parametrize("step", [1, 3, 7, 10, 25])
def test_the_oldest_are_overwritten(step):
  replay = make_replay()
  for end in range(step, 51, step):
    insert(replay, end - step, end)
    assert_holds(replay, max(0, end - 10), end)
    sample = replay.sample(20)
    np.testing.assert_array_equal(sample.data, rows_of(0, end)[sample.indices])
  assert replay.num_inserts() == 50 // step * step


def test_draws_are_uniform():
  replay = make_replay(max_size=1_000, row_size=1)
  insert(replay, 0, 1_700, row_size=1)
  indices = np.concatenate(
    [sample.indices for sample in itertools.islice(replay.batches(256), 800)]
  )
  counts = np.bincount(indices, minlength=1_700)
  assert not counts[:700].any()
  expected = len(indices) / 1_000
  chi_square = np.sum((counts[700:] - expected) ** 2 / expected)
  # With 999 degrees of freedom: 999 +- 45, of which five times are allowed.
  assert abs(chi_square - 999) < 5 * 45
  # One draw tells nothing of the next: 0 +- 1 / sqrt(200,000), five times.
  correlation = np.corrcoef(indices[:-1], indices[1:])[0, 1]
  assert abs(correlation) < 5 / np.sqrt(len(indices))


def test_the_seed_makes_the_draws():
  first, same, other = (make_replay(seed=seed) for seed in (1, 1, 2))
  for replay in (first, same, other):
    insert(replay, 0, 10)
  drawn = first.sample(50).indices
  np.testing.assert_array_equal(drawn, same.sample(50).indices)
  assert (drawn != other.sample(50).indices).any()


def test_samples_are_due_as_the_pace_says():
  replay = make_replay()
  insert(replay, 0, 3)
  assert replay.num_samples_due() == 0.0
  insert(replay, 3, 4)
  assert replay.num_samples_due() == PACE.num_samples_due(4) == 8.0
  # Inserts count, not what is left of them.
  insert(replay, 4, 100)
  assert replay.num_samples_due() == PACE.num_samples_due(100)


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_held_is_refused():
  replay = make_replay()
  for shape in ((3,), (2, 4), (2, 2), (1, 2, 3)):
    with pytest.raises(ValueError, match="rows of 3 numbers"):
      replay.insert(np.zeros(shape))
  for value in (np.nan, np.inf, 1e300):
    with pytest.raises(NonFiniteError):
      replay.insert([[0.0, value, 0.0]])
  assert replay.num_inserts() == 0
  with pytest.raises(ValueError, match="empty"):
    replay.sample(1)
  for sizes in ({"max_size": 0}, {"row_size": 0}):
    with pytest.raises(ValueError, match="positive size"):
      make_replay(**sizes)


def test_extras_that_are_written_are_drawn_and_saved(tmp_path, small_files):
  replay = make_replay()
  insert(replay, 0, 12)  # The first two are gone.
  expected = rows_of(0, 14)
  replay.save(tmp_path / "0")
  replay.write_extras(
    np.array([1, 5, 11, 5]),
    np.array([[9, 9], [1, 2], [3, 4], [5, 6]], np.float32),
  )
  expected[5, 1:], expected[11, 1:] = (5, 6), (3, 4)
  # What was saved is written anew, as it has changed.
  replay.save(tmp_path / "1", tmp_path / "0")
  np.testing.assert_array_equal(restore(tmp_path / "1").rows(), expected[2:12])

  with pytest.raises(NonFiniteError, match="new extras"):
    replay.write_extras(np.array([6, 7]), np.array([[1, 2], [3, np.nan]]))
  drawn = Sample(expected[[2, 6]], np.array([2, 6]))
  replay.write_extras(np.array([6]), np.array([[7, 8]], np.float32))
  expected[6, 1:] = 7, 8
  insert(replay, 12, 14)
  # Of what was drawn before, 2 is gone by now.
  np.testing.assert_array_equal(replay.refresh(drawn).data, expected[[2, 6]])
  np.testing.assert_array_equal(drawn.data[1], rows_of(6, 7)[0])
  replay.save(tmp_path / "2", tmp_path / "1")
  np.testing.assert_array_equal(restore(tmp_path / "2").rows(), expected[4:])


@pytest.mark.parametrize("num_inserts", [0, 1, 7, 10, 23])
def test_a_restored_replay_goes_on_as_if_nothing_had_been(
  small_files, tmp_path, num_inserts
):
  replay = make_replay()
  insert(replay, 0, num_inserts)
  if num_inserts:
    # An odd number, so that the generator keeps half a draw.
    replay.sample(5)
  replay.save(tmp_path / "replay")
  assert embedded.wrote(tmp_path / "replay")
  assert not embedded.wrote(tmp_path)
  # What comes later is not in it.
  restored = restore(tmp_path / "replay", seed=9)
  assert restored.size() == replay.size()
  for step in range(20):
    for each in (replay, restored):
      begin = num_inserts + 2 * step
      insert(each, begin, begin + 2)
    ours, theirs = restored.sample(7), replay.sample(7)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.data, theirs.data)
  assert restored.num_samples() == replay.num_samples()
  assert restored.num_samples_due() == replay.num_samples_due()


def test_what_is_inserted_after_a_save_is_not_in_it(small_files, tmp_path):
  replay = make_replay()
  previous = None
  for end in range(0, 60, 3):
    folder = tmp_path / str(end)
    replay.save(folder, previous)
    previous = folder
    insert(replay, end, end + 3)
  for end in range(3, 60, 3):
    assert_holds(restore(tmp_path / str(end)), max(0, end - 10), end)


@pytest.mark.parametrize("max_size", [1, 6, 10, 11, 40])
def test_another_size_keeps_the_newest(small_files, tmp_path, max_size):
  replay = make_replay()
  insert(replay, 0, 27)
  replay.save(tmp_path / "1")
  restored = restore(tmp_path / "1", max_size=max_size)
  assert_holds(restored, 27 - min(10, max_size), 27)
  insert(restored, 27, 32)
  restored.save(tmp_path / "2", tmp_path / "1")
  again = restore(tmp_path / "2", max_size=max_size)
  assert_holds(again, 32 - min(max_size, 15), 32)
  # Whatever it could hold.
  read = embedded.read(tmp_path / "2")
  assert_holds(read, 32 - min(max_size, 15), 32)
  assert read.num_inserts() == 32


def files_of(folder):
  """The files of transitions: name -> the file's identity."""
  return {path.name: path.stat().st_ino for path in folder.glob("*.npy")}


def test_files_that_have_not_changed_are_linked(small_files, tmp_path):
  replay = make_replay()
  insert(replay, 0, 14)
  replay.save(tmp_path / "1")
  # Rows 4 to 13, the last file not full.
  first = files_of(tmp_path / "1")
  assert len(first) == 3
  insert(replay, 14, 17)
  replay.save(tmp_path / "2", tmp_path / "1")
  # Rows 7 to 16: of the first file one is left, the third is full.
  second = files_of(tmp_path / "2")
  assert len(second) == 4
  assert len(first.items() & second.items()) == 2

  restored = restore(tmp_path / "2")
  insert(restored, 17, 18)
  restored.save(tmp_path / "3", tmp_path / "2")
  third = files_of(tmp_path / "3")
  assert len(third) == 3
  assert len(second.items() & third.items()) == 2
  # Nothing to link: all is written, under new names.
  shutil.rmtree(tmp_path / "3")
  restored.save(tmp_path / "3", tmp_path / "nowhere")
  assert not third.keys() & files_of(tmp_path / "3").keys()
  assert_holds(restore(tmp_path / "3"), 8, 18)


def test_an_abandoned_futures_files_are_not_linked(small_files, tmp_path):
  replay = make_replay()
  insert(replay, 0, 4)
  replay.save(tmp_path / "1")
  replay.insert(np.full((4, 3), -1.0))
  replay.save(tmp_path / "2", tmp_path / "1")
  restored = restore(tmp_path / "1")
  insert(restored, 4, 8)
  restored.save(tmp_path / "3", tmp_path / "2")
  assert_holds(restore(tmp_path / "3"), 0, 8)


def _first_file(folder):
  return min(folder.glob("*.npy"))


def _file(change):
  """Damage to the bytes of the first file of transitions."""

  def damage(folder):
    path = _first_file(folder)
    path.write_bytes(change(path.read_bytes()))

  return damage


def _array(array):
  """Another array in place of the first file's."""
  stream = io.BytesIO()
  np.save(stream, array, allow_pickle=True)
  return _file(lambda _: stream.getvalue())


def _index(**changes):
  """Damage to the index: functions of what it says."""

  def damage(folder):
    path = folder / embedded_files.INDEX
    content = json.loads(path.read_text())
    for name, change in changes.items():
      content[name] = change(content[name])
    path.write_text(json.dumps(content))

  return damage


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_file(lambda content: content[:-1]), "reshape|read"),
    (_file(lambda content: content[:20]), "npy|header|EOF"),
    (_file(lambda content: content + b"x"), "goes on after its end"),
    (_file(lambda content: content.replace(b"{", b"'")), "header|EOF|untermin"),
    (_array(np.zeros((4, 3))), r"float64 \(4, 3\) instead of float32"),
    (_array(np.zeros((3, 3), np.float32)), r"\(3, 3\) instead of float32"),
    (_array(np.full((4, 3), np.nan, np.float32)), "a NaN or an infinity"),
    (_array(np.array([object()])), "Object arrays cannot be loaded"),
    (lambda folder: _first_file(folder).unlink(), "No such file"),
    (lambda folder: (folder / embedded_files.INDEX).unlink(), "No such file"),
    (lambda folder: os.truncate(folder / embedded_files.INDEX, 99), "line"),
    (_index(version=lambda _: 1), "version 1; this release reads 3"),
    (_index(files=lambda files: files[1:]), "transition 0 is missing"),
    (
      _index(files=lambda files: [["../secret.npy", 0, 4], *files[1:]]),
      "no file's name",
    ),
    (_index(files=lambda _: [1]), "replay"),
    (_index(row_size=lambda _: 4), "4 numbers in a transition instead of 3"),
    (
      _index(extras=lambda _: ["mean: float32 [2]"]),
      r"holds \['mean: float32 \[2\]'\] extras of a transition instead of \[\]",
    ),
    (_index(size=lambda _: 8), "transition -1 is missing"),
    (_index(num_inserts=lambda _: 8), "end at transition 7"),
    (_index(num_inserts=lambda _: -1), "num_inserts is -1"),
    (_index(num_samples=lambda _: 1.5), r"num_samples is 1\.5"),
    (_index(num_samples=lambda _: 1 << 64), "num_samples is"),
    (_index(random=lambda _: {}), "replay"),
    (_index(random=lambda _: 3), "replay"),
  ],
)
def test_what_is_damaged_is_refused(small_files, tmp_path, damage, message):
  replay = make_replay()
  insert(replay, 0, 7)
  replay.save(tmp_path / "replay")
  damage(tmp_path / "replay")
  restored = make_replay()
  with pytest.raises(ValueError, match=message) as raised:
    restored.restore(tmp_path / "replay")
  assert str(tmp_path / "replay") in str(raised.value)
  # It is as good as new.
  assert restored.num_inserts() == restored.size() == 0
  insert(restored, 0, 3)
  assert_holds(restored, 0, 3)


def test_a_replay_in_use_does_not_go_on_from_another(tmp_path):
  replay = make_replay()
  insert(replay, 0, 7)
  replay.save(tmp_path / "replay")
  with pytest.raises(ValueError, match="only an empty replay"):
    replay.restore(tmp_path / "replay")
  assert_holds(replay, 0, 7)


def save_checkpoint(checkpointer, replay):
  return checkpointer.save(
    replay.num_inserts(),
    {},
    {},
    lambda folder, previous: replay.save(
      folder / "replay", previous / "replay" if previous else None
    ),
  )


def test_linked_files_are_verified_all_the_same(small_files, tmp_path):
  replay = make_replay()
  checkpointer = Checkpointer(tmp_path, max_to_keep=3)
  paths = []
  for begin in range(0, 12, 4):
    insert(replay, begin, begin + 4)
    paths.append(save_checkpoint(checkpointer, replay))
  assert _first_file(paths[1] / "replay").samefile(
    _first_file(paths[0] / "replay")
  )
  assert checkpointer.latest().path == paths[2]
  # The file that the second added: the first does without it.
  path = sorted((paths[1] / "replay").glob("*.npy"))[1]
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  assert checkpointer.latest().path == paths[0]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
  sizes = {"max_size": 1_000, "row_size": 100}
  with small_disk(tmp_path / "disk", "256k") as disk:
    replay = make_replay(**sizes)
    checkpointer = Checkpointer(disk)
    insert(replay, 0, 50, 100)
    path = save_checkpoint(checkpointer, replay)
    insert(replay, 50, 1_000, 100)
    with pytest.raises(OSError, match="No space left"):
      save_checkpoint(checkpointer, replay)
    assert [each.name for each in disk.iterdir()] == [path.name]
    latest = checkpointer.latest().path / "replay"
    assert_holds(restore(latest, **sizes), 0, 50, 100)
    # It goes on, and is saved when there is room.
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    save_checkpoint(checkpointer, replay)
    latest = checkpointer.latest().path / "replay"
    assert_holds(restore(latest, **sizes), 0, 1_000, 100)


# Forks a process per line it reads (importing again would take its time), which
# goes on from the last checkpoint, and inserts and saves until it is killed.
_SAVE_FOREVER = """
import os, sys
from acme_qsm.experiments.records.checkpointing import Checkpointer
from acme_qsm.replay import embedded_files
from tests.replay import embedded_test

embedded_files._FILE_BYTES = 40_000

def save_forever():
  replay = embedded_test.make_replay(max_size=20_000, row_size=10)
  checkpointer = Checkpointer(sys.argv[1])
  latest = checkpointer.latest()
  if latest is not None:
    replay.restore(latest.path / "replay")
  while True:
    begin = replay.num_inserts()
    embedded_test.insert(replay, begin, begin + 1_500, row_size=10)
    embedded_test.save_checkpoint(checkpointer, replay)
    print("saved", replay.num_inserts(), flush=True)

for line in sys.stdin:
  pid = os.fork()
  if pid == 0:
    save_forever()
  print("pid", pid, flush=True)
  os.waitpid(pid, 0)
  print("dead", flush=True)
"""


def test_a_kill_at_any_moment_of_a_save_loses_nothing(tmp_path):
  rng = random.Random(0)
  in_the_middle = 0
  last = 0
  with subprocess.Popen(
    [sys.executable, "-c", _SAVE_FOREVER, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as server:
    for _ in range(12):
      print("start", file=server.stdin, flush=True)
      pid, saved = None, last
      while pid is None or saved < last + 3_000:
        word, number = server.stdout.readline().split()
        if word == "pid":
          pid = int(number)
        else:
          saved = int(number)
      # A random moment within the next save or so, which takes some 10 ms.
      with pytest.raises(subprocess.TimeoutExpired):
        server.wait(rng.uniform(0.0, 0.03))
      os.kill(pid, signal.SIGKILL)
      while (line := server.stdout.readline()) != "dead\n":
        saved = int(line.split()[1])
      in_the_middle += any(tmp_path.glob(".*"))
      checkpoint = Checkpointer(tmp_path).latest()
      assert checkpoint.step in (saved, saved + 1_500)
      last = checkpoint.step
      replay = restore(checkpoint.path / "replay", max_size=20_000, row_size=10)
      assert replay.num_inserts() == last
      assert_holds(replay, max(0, last - 20_000), last, row_size=10)
    server.stdin.close()
  # The kills did come in the middle of saving.
  assert in_the_middle >= 3


# Prints the bytes that the process has grown by, at most.
_GROW = """
import pathlib, sys
import numpy as np
from acme_qsm.experiments.records.checkpointing import Checkpointer
from tests.replay import embedded_test

def memory(name):
  for line in open("/proc/self/status"):
    if line.startswith(name + ":"):
      return 1024 * int(line.split()[1])

def run(size, num_inserts, path):
  replay = embedded_test.make_replay(size, 42)
  checkpointer = Checkpointer(path)
  latest = checkpointer.latest()
  if latest is not None:
    replay.restore(latest.path / "replay")
  rows = np.random.default_rng(0).normal(size=(500, 42)).astype(np.float32)
  for _ in range(2):
    for _ in range(num_inserts // 1_000):
      replay.insert(rows)
      replay.sample(256)
    embedded_test.save_checkpoint(checkpointer, replay)
  assert replay.size() == min(size, replay.num_inserts())

directory, size = pathlib.Path(sys.argv[1]), int(sys.argv[2])
# So that the base has what a save, a draw and an insert load.
run(10_000, 10_000, directory / "base")
base = memory("VmRSS")
run(size, min(2 * size, 2_000_000) if size <= 1_000_000 else 100_000,
    directory / "run")
print(memory("VmHWM") - base)
"""


def grow(path, size):
  result = subprocess.run(
    [sys.executable, "-c", _GROW, path, str(size)],
    check=True,
    capture_output=True,
    text=True,
  )
  return int(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_data(tmp_path):
  data = 1_000_000 * 42 * 4
  # Over-full, saved twice; then restored, run and saved again.
  assert data <= grow(tmp_path, 1_000_000) <= 1.3 * data
  assert data <= grow(tmp_path, 1_000_000) <= 1.3 * data
  # Rows that are not written take none: of a hundred millions, which would be
  # 17 GB, a tenth of a million is.
  most = 1.3 * 100_000 * 42 * 4 + (8 << 20)
  assert grow(tmp_path / "large", 100_000_000) <= most
