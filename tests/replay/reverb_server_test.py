"""Replay servers, and who may connect to them."""

import contextlib
import os
import socket
import subprocess
import sys

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import psutil
import pytest
import reverb
import tensorflow as tf

from acme_qsm import types
from acme_qsm.replay import reverb_server
from acme_qsm.replay import reverb_tables
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.pacing import Pace
from tests.small_disk import small_disk

pytestmark = pytest.mark.acme


@contextlib.contextmanager
def serving(run_id, **kwargs):
  server = reverb_server.ReplayServer(
    [reverb.Table.queue("queue", 10)], run_id=run_id, **kwargs
  )
  try:
    yield server
  finally:
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_only_the_named_address_answers(host):
  with serving("1", host=host) as server:
    assert reverb_server.connect(server.address, "1").server_info()
    other = "127.0.0.1" if ":" in host else "::1"
    port = int(server.address.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="refused"):
      socket.create_connection((other, port))


def test_a_run_knows_its_server():
  with serving("1") as server:
    client = reverb_server.connect(server.address, "1")
    client.insert(3.0, {"queue": 1.0})
    assert server.size() == 1


@pytest.mark.parametrize("other", ["2", "10", ""])
def test_another_runs_server_is_refused(other):
  with (
    serving(other) as server,
    pytest.raises(
      reverb_server.WrongServerError, match="belongs to another run"
    ),
  ):
    reverb_server.connect(server.address, "1")


def test_nobody_listens():
  with socket.socket() as probe:
    # Bound, so that nobody else takes it.
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    with pytest.raises(ConnectionError, match="No answer from replay"):
      reverb_server.connect(f"127.0.0.1:{port}", "1", timeout=2)


def test_what_is_saved_is_restored(tmp_path):
  staging = tmp_path / "staging"
  with serving("1", staging=staging) as server:
    server.client.insert(3.0, {"queue": 1.0})
    reverb_server.save(server.client, staging, tmp_path / "saved")
    assert list(staging.iterdir()) == []
  with serving("1", staging=staging, checkpoint=tmp_path / "saved") as server:
    assert server.size() == 1
    assert reverb_server.connect(server.address, "1").server_info()["queue"]


def test_a_failed_save_leaves_nothing_behind(tmp_path):
  staging = tmp_path / "staging"
  with serving("1", staging=staging) as server:
    with pytest.raises(OSError, match="saved"):
      reverb_server.save(server.client, staging, tmp_path / "nowhere" / "saved")
    assert list(staging.iterdir()) == []


def test_a_disk_that_is_full_sooner_or_later(tmp_path):
  """Reverb's own errors differ by what it could not write."""
  page = 4096
  with small_disk(tmp_path / "disk", "1m") as disk:
    staging, ballast = disk / "staging", disk / "ballast"
    with serving("1", staging=staging) as server:
      random = np.random.default_rng(0)
      server.client.insert(random.normal(size=2 * page), {"queue": 1.0})
      for num_pages in range(10):
        with (
          contextlib.suppress(OSError),
          ballast.open("wb", buffering=0) as file,
        ):
          while True:
            file.write(bytes(page))
        os.truncate(ballast, ballast.stat().st_size - num_pages * page)
        with pytest.raises(OSError, match="cannot write replay"):
          reverb_server.save(server.client, staging, disk / "saved")
        assert list(staging.iterdir()) == []
      ballast.unlink()
      reverb_server.save(server.client, staging, disk / "saved")


@pytest.mark.parametrize(("width", "lifted"), [(15.0, True), (16.0, False)])
def test_only_narrow_limiters_are_lifted_in_one_process(width, lifted):
  def make_table():
    return reverb.Table(
      name="table",
      sampler=reverb.selectors.Uniform(),
      remover=reverb.selectors.Fifo(),
      max_size=100,
      rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
        samples_per_insert=4.0,
        min_size_to_sample=10,
        error_buffer=4.0 * width,
      ),
    )

  server = reverb_server.LocalReplay([make_table()])
  try:
    limiter = server.info().rate_limiter_info
    expected = make_table().info.rate_limiter_info
    assert limiter.min_diff == expected.min_diff
    assert (limiter.max_diff > 1e300) == lifted
    assert lifted or limiter.max_diff == expected.max_diff
  finally:
    server.stop()


@pytest.mark.parametrize("per_item", [1, 2])
def test_what_an_embedded_replay_saved_goes_on_in_reverb(
  tmp_path, make_spec, per_item
):
  extras_spec = {"log_prob": types.ArraySpec(())}
  codec = TransitionCodec(make_spec(), extras_spec)
  pace = Pace(samples_per_insert=4.0, min_size=3, middle=12.0, half_width=100.0)
  replay = EmbeddedReplay(codec.size, 9, pace, extras=codec.describe_extras())
  replay.insert(np.arange(11 * codec.size).reshape(11, -1))
  replay.sample(8)
  replay.write_extras(np.array([7]), np.array([[-1.0]]))
  replay.save(tmp_path / "replay")

  table = reverb_tables.make_table(codec, pace, 100, per_item)
  server = reverb_server.LocalReplay([table], checkpoint=tmp_path / "replay")
  try:
    # The newest that fill whole items.
    assert server.size() == 9 // per_item
    if per_item == 1:
      due = server.num_samples_due() - server.num_samples()
      assert due == replay.num_samples_due() - replay.num_samples()
    samples = server.client.sample(
      table.name, 90, emit_timesteps=False, unpack_as_table_signature=True
    )
    found = np.unique([sample.data for sample in samples], axis=0)
  finally:
    server.stop()
  rows = replay.rows()[9 % per_item :]
  np.testing.assert_array_equal(found.reshape(rows.shape), rows)
  assert rows[-4, -1] == -1.0


# Serves a table until its input ends.
SERVER = """
import sys
import acme_qsm.acme_compat
from tests.replay import reverb_server_test
import reverb
size, num_columns, num_items = map(int, sys.argv[1:])
table = reverb_server_test.make_table(size, num_columns, num_items)
server = reverb.Server([table])
print(f"port {server.port}", flush=True)
sys.stdin.read()
server.stop()
"""


def make_table(size, num_columns, num_items):
  return reverb.Table(
    name="table",
    sampler=reverb.selectors.Uniform(),
    remover=reverb.selectors.Fifo(),
    max_size=num_items,
    rate_limiter=reverb.rate_limiters.MinSize(1),
    signature=[tf.TensorSpec((size,), tf.float32)] * num_columns,
  )


def fill(client, size, num_columns, num_items):
  """Inserts items of numbers that cannot be compressed."""
  random = np.random.default_rng(0)
  with client.trajectory_writer(num_keep_alive_refs=1) as writer:
    for _ in range(num_items):
      data = random.normal(size=(num_columns, size)).astype(np.float32)
      writer.append(list(data))
      columns = [column[-1] for column in writer.history]
      writer.create_item("table", priority=1.0, trajectory=columns)
      writer.flush(5)
    writer.flush()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("size", "num_columns", "num_items"),
  # Small transitions, sixteen of those in an item, and a column for each part.
  [(42, 1, 30_000), (16 * 42, 1, 20_000), (8, 5, 10_000)],
)
def test_the_memory_that_a_full_table_takes(size, num_columns, num_items):
  sizes = (size, num_columns, num_items)
  command = [sys.executable, "-c", SERVER, *map(str, sizes)]
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    try:
      # Whatever the libraries print comes before.
      output = process.stdout
      assert output is not None
      port = next(
        line.split()[1] for line in output if line.startswith("port ")
      )
      client = reverb.Client(f"localhost:{port}")
      assert client.server_info()["table"].current_size == 0
      server = psutil.Process(process.pid)
      empty = server.memory_info().rss
      fill(client, *sizes)
      assert client.server_info()["table"].current_size == num_items
      grown = server.memory_info().rss - empty
    finally:
      process.communicate()
  estimate = reverb_tables.max_bytes(make_table(*sizes))
  assert estimate == pytest.approx(grown, rel=0.15), grown / num_items
