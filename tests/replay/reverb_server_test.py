"""Replay servers, and who may connect to them."""

import contextlib
import socket

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import pytest
import reverb

from acme_qsm.replay import reverb_server


@contextlib.contextmanager
def serving(run_id, **kwargs):
  server = reverb_server.ReplayServer(
    [reverb.Table.queue("queue", 10)], run_id=run_id, **kwargs
  )
  try:
    yield server
  finally:
    server.stop()


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
