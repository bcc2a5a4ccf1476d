"""Counts, phases and the end of a run, without any process."""

import json

import pytest

from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.coordination.messages import Report


class Clock:
  """Stands still until told."""

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


def make_coordinator(num_actors=2, max_actor_steps=100, **kwargs):
  return Coordinator(num_actors, max_actor_steps, **kwargs)


def act(coordinator, index, steps, incarnation="1"):
  return coordinator.report(
    Report(
      f"actor_{index}",
      incarnation,
      "acting",
      totals={"actor_steps": steps},
    )
  )


def test_counts_are_sums_over_actors_and_what_was_before():
  coordinator = make_coordinator(initial_counts={"actor_steps": 40})
  act(coordinator, 0, 5)
  orders = act(coordinator, 1, 7)
  assert orders.counts == {"actor_steps": 52}
  # A total, not an increase: reporting it twice changes nothing.
  assert act(coordinator, 1, 7).counts == {"actor_steps": 52}


def test_counts_do_not_fall_when_an_actor_starts_again():
  coordinator = make_coordinator()
  act(coordinator, 0, 30)
  assert act(coordinator, 0, 0, incarnation="2").counts == {"actor_steps": 30}
  assert act(coordinator, 0, 4, incarnation="2").counts == {"actor_steps": 34}
  status = coordinator.status()
  assert status["nodes"]["actor_0"]["restarts"] == 1
  # Nobody was there to tell of what.
  assert status["events"] == [
    "actor_0 died: its process is gone. It is started again.",
    "actor_0 was started again.",
  ]


def test_actors_end_once_enough_steps_are_made():
  coordinator = make_coordinator(2, 100)
  assert act(coordinator, 0, 60).phase is Phase.ACTING
  # The report of what makes them enough is the first that is answered so.
  assert act(coordinator, 1, 47).phase is Phase.LEARNING
  # What is made until an actor hears of it counts.
  orders = act(coordinator, 0, 64)
  assert orders.phase is Phase.LEARNING
  assert orders.counts == {"actor_steps": 111}


def test_a_run_is_finished_when_learner_and_evaluator_are_done():
  coordinator = make_coordinator(1, 10)
  assert act(coordinator, 0, 9).phase is Phase.ACTING
  assert act(coordinator, 0, 10).phase is Phase.LEARNING
  coordinator.done("learner")
  assert act(coordinator, 0, 10).phase is Phase.LEARNING
  coordinator.done("evaluator")
  assert act(coordinator, 0, 10).phase is Phase.FINISHED


def test_an_interrupted_run_waits_for_the_learner_to_save():
  coordinator = make_coordinator(1, 10)
  act(coordinator, 0, 5)
  coordinator.interrupt("SIGTERM")
  orders = act(coordinator, 0, 5)
  assert orders.phase is Phase.ACTING
  assert orders.interrupting
  coordinator.done("learner")
  assert act(coordinator, 0, 5).phase is Phase.INTERRUPTED
  assert coordinator.status()["reason"] == "SIGTERM"
  coordinator.fail("too late to fail")
  assert coordinator.status()["phase"] == "interrupted"


def test_a_run_goes_on_without_some_of_its_actors_but_not_without_all():
  coordinator = make_coordinator(2, 100)
  coordinator.lost("actor_0", "it raised ValueError")
  act(coordinator, 0, 0)
  act(coordinator, 1, 0)
  coordinator.lost("actor_0", "it raised ValueError", final=True)
  assert act(coordinator, 1, 20).phase is Phase.ACTING
  coordinator.lost("actor_1", "killed by SIGKILL", final=True)
  assert act(coordinator, 1, 20).phase is Phase.FAILED
  status = coordinator.status()
  assert "actor_1 the last: killed by SIGKILL" in status["reason"]
  assert sum(" died: " in event for event in status["events"]) == 3


def test_a_run_without_its_evaluator_can_finish():
  coordinator = make_coordinator(1, 10)
  act(coordinator, 0, 10)
  coordinator.lost("evaluator", "exit code 1", final=True)
  coordinator.done("learner")
  assert coordinator.status()["phase"] == "finished"


def test_services_are_found_where_they_last_announced_themselves():
  coordinator = make_coordinator()
  assert act(coordinator, 0, 0).addresses == {}
  coordinator.announce("replay", "127.0.0.1:1")
  coordinator.announce("replay", "127.0.0.1:2")
  assert act(coordinator, 0, 0).addresses == {"replay": "127.0.0.1:2"}


@pytest.mark.parametrize(
  ("lifetime", "told", "failed", "num_lives"),
  [
    # Whether or not somebody watches over it, and tells.
    (10.0, False, True, 5),
    (10.0, True, True, 5),
    (100.0, False, True, None),
    (100.0, True, True, None),
    # One that is told to end has not failed.
    (10.0, True, False, None),
  ],
)
def test_who_fails_soon_after_each_start_is_given_up(
  lifetime, told, failed, num_lives
):
  clock = Clock()
  coordinator = make_coordinator(1, clock=clock)
  for number in range(1, 9):
    orders = coordinator.report(Report("learner", str(number), "learning"))
    if orders.given_up:
      break
    clock.now += lifetime
    coordinator.report(Report("learner", str(number), "learning"))
    if told and coordinator.lost("learner", "exit code 1", failed=failed):
      break
  status = coordinator.status()
  if num_lives is None:
    assert status["phase"] == "acting"
    assert status["nodes"]["learner"]["restarts"] == 7
  else:
    assert number == num_lives + (not told)
    cause = "exit code 1" if told else "its process is gone"
    assert status["reason"] == f"learner was given up: {cause}"


def test_who_cannot_be_started_again_after_a_long_life_is_given_up():
  clock = Clock()
  coordinator = make_coordinator(1, clock=clock)
  coordinator.report(Report("learner", "1", "learning"))
  clock.now += 100.0
  coordinator.report(Report("learner", "1", "learning"))
  told = [coordinator.lost("learner", "no memory") for _ in range(5)]
  assert told == [False, False, False, False, True]


def test_the_status_names_who_has_not_started():
  coordinator = make_coordinator(2)
  act(coordinator, 1, 0)
  nodes = coordinator.status()["nodes"]
  states = {name: node["state"] for name, node in nodes.items()}
  assert states == {
    "actor_0": "starting",
    "actor_1": "acting",
    "evaluator": "starting",
    "learner": "starting",
    "replay": "starting",
  }


def test_a_process_that_was_replaced_is_told_so_and_not_counted():
  coordinator = make_coordinator(1, 1000)
  act(coordinator, 0, 10)
  act(coordinator, 0, 5, incarnation="2")
  for _ in range(8):
    orders = act(coordinator, 0, 20)
    assert orders.given_up
    assert not act(coordinator, 0, 5, incarnation="2").given_up
  assert coordinator.status()["counts"] == {"actor_steps": 15}
  assert coordinator.status()["nodes"]["actor_0"]["restarts"] == 1


@pytest.mark.parametrize("done", [False, True])
def test_an_evaluator_that_is_not_heard_of_any_more_is_done_without(done):
  clock = Clock()
  coordinator = make_coordinator(1, 10, clock=clock)
  for name in ("replay", "learner", "evaluator"):
    coordinator.report(Report(name, name, "starting"))
  act(coordinator, 0, 10)
  coordinator.done("learner")
  if done:
    coordinator.done("evaluator")
  for _ in range(2):
    clock.now += 200.0
    for name in ("replay", "learner"):
      coordinator.report(Report(name, name, "serving"))
    coordinator.notice_silence()
  status = coordinator.status()
  assert status["phase"] == "finished"
  told = "evaluator died: nothing was heard of it for 400 seconds."
  assert status["events"] == ([] if done else [f"{told} It is given up."])


def test_who_never_reports_is_done_without():
  clock = Clock()
  coordinator = make_coordinator(2, 100, clock=clock, start_seconds=30.0)
  for name in ("replay", "learner"):
    coordinator.report(Report(name, name, "starting"))
  act(coordinator, 0, 0)
  clock.now = 30.0
  coordinator.notice_silence()
  assert coordinator.status()["events"] == []
  clock.now = 31.0
  coordinator.notice_silence()
  coordinator.notice_silence()
  status = coordinator.status()
  assert status["phase"] == "acting"
  assert status["events"] == [
    f"{name} died: it did not report within 30 seconds. It is given up."
    for name in ("actor_1", "evaluator")
  ]
  assert status["nodes"]["actor_1"]["state"] == "given up"
  # The other makes all the steps, and nobody waits for an evaluation.
  act(coordinator, 0, 100)
  coordinator.done("learner")
  assert coordinator.status()["phase"] == "finished"


def test_who_comes_after_it_was_given_up_is_told_so():
  clock = Clock()
  coordinator = make_coordinator(2, 100, clock=clock)
  for name in ("replay", "learner"):
    coordinator.report(Report(name, name, "starting"))
  act(coordinator, 0, 0)
  clock.now = 299.0
  act(coordinator, 0, 0)
  clock.now = 301.0
  coordinator.notice_silence()
  assert act(coordinator, 1, 0).given_up
  assert not act(coordinator, 0, 0).given_up


@pytest.mark.parametrize("absent", ["learner", "replay", "actor_0"])
def test_a_run_without_what_it_needs_fails(absent):
  clock = Clock()
  coordinator = make_coordinator(1, clock=clock, start_seconds=30.0)
  present = {"learner", "replay", "evaluator", "actor_0"} - {absent}
  for name in present:
    coordinator.report(Report(name, name, "starting"))
  clock.now = 31.0
  coordinator.notice_silence()
  status = coordinator.status()
  assert status["phase"] == "failed"
  cause = "it did not report within 30 seconds"
  assert status["reason"] == (
    f"all actors were given up; actor_0 the last: {cause}"
    if absent == "actor_0"
    else f"{absent} was given up: {cause}"
  )


@pytest.mark.parametrize(
  ("silent", "reason"),
  [
    ("learner", "nothing was heard of learner for 400 seconds"),
    ("replay", "nothing was heard of replay for 400 seconds"),
    ("actor", "nothing was heard of any actor for 300 seconds"),
  ],
)
def test_a_run_fails_without_what_nobody_starts_again(silent, reason):
  clock = Clock()
  coordinator = make_coordinator(2, clock=clock)
  names = ("learner", "replay", "evaluator", "actor_0", "actor_1")
  for now in (0.0, 200.0, 400.0):
    clock.now = now
    for name in names:
      if not now or not name.startswith(silent):
        coordinator.report(Report(name, name, "working"))
    coordinator.notice_silence()
  assert coordinator.status()["reason"] == reason


def test_who_is_told_to_end_has_not_failed():
  clock = Clock()
  coordinator = make_coordinator(1, 1000, clock=clock)
  for incarnation in range(20):
    act(coordinator, 0, 5, str(incarnation))
    clock.now += 5.0
    orders = coordinator.report(
      Report("actor_0", str(incarnation), "evicted", totals={"actor_steps": 5})
    )
    assert not orders.given_up
  # And each one's steps count.
  status = coordinator.status()
  assert status["counts"] == {"actor_steps": 100}
  assert status["nodes"]["actor_0"]["restarts"] == 19


def test_an_interrupt_after_the_learner_has_saved_is_one():
  coordinator = make_coordinator(1, 10)
  act(coordinator, 0, 10)
  coordinator.done("learner")
  coordinator.interrupt("SIGINT")
  coordinator.done("evaluator")
  assert coordinator.status()["phase"] == "interrupted"


def test_the_status_tells_who_is_silent():
  clock = Clock()
  coordinator = make_coordinator(clock=clock)
  act(coordinator, 0, 1)
  clock.now = 3.0
  act(coordinator, 1, 1)
  clock.now = 4.5
  nodes = coordinator.status()["nodes"]
  assert nodes["actor_0"]["silent_seconds"] == 4.5
  assert nodes["actor_1"]["silent_seconds"] == 1.5
  json.dumps(coordinator.status(), allow_nan=False)
