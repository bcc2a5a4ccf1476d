"""Ray as the engine of a distributed run: processes on one machine or many.

Ray finds each process a machine, and starts it again, there or elsewhere, when
it dies. What Ray starts are actors in its sense: a `_Process` each. Ray reads
its settings when it is imported, so that is done once they are known.
"""

import contextlib
import dataclasses
import faulthandler
import os
import pickle
import secrets
import socket
import threading
import time
import traceback
import typing
import warnings
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from acme_qsm.distributed.coordination import link
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import ENDED_STATES
from acme_qsm.distributed.coordination.messages import GIVEN_UP
from acme_qsm.distributed.engines import ray_resources
from acme_qsm.distributed.processes import process
from acme_qsm.distributed.processes import reaper
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.replay.listening import addresses

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.plan import Plan

# A process that gives no sign of life for so long is started again.
_HANG_SECONDS = 60.0
_END_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
_MARK = "ACME_QSM_RAY"
_SETTINGS = {
  # Not for us to say of our users.
  "RAY_USAGE_STATS_ENABLED": "0",
  # Seconds; a busy machine takes longer than Ray expects.
  "RAY_raylet_start_wait_time_s": "120",
  # Every machine has an environment of its own: nothing is to be copied there.
  "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
  # Which device a process sees is set in `process.environment_variables`.
  "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class _Process:
  """One process of a run, as Ray starts it: on whatever machine, ever again."""

  def run(
    self,
    name: str,
    run: bytes,
    key: bytes,
    coordinator: str,
    *,
    host: str | None,
    log: str | None,
  ) -> None:
    """Does the process's work until the run ends.

    Args:
      name: its name in the run.
      run: the pickled `DistributedRun`.
      key: the run's.
      coordinator: the coordinator's address.
      host: the IP address to listen on; None for this machine's in the cluster.
      log: the file that its output is appended to.
    """
    # Ray's own processes were not started by the launcher where they belong to
    # a cluster, which may tell all of them.
    interruption.leave_to_launcher()
    host = host or _own_address()
    client = rpc.Client(coordinator, key)
    try:
      if log is not None:
        process.redirect_output(log)
      faulthandler.enable()
      client = process.connect(coordinator, key)
      # From here on the coordinator knows of it, and how often it has failed.
      node_link = link.Link(name, client, host=host)
      if node_link.orders.given_up:
        node_link.close()
        return
      code = process.work(run, node_link)
      if code == supervision.ExitCode.DONE:
        return
      death = supervision.Death(code)
      cause, failed, final = str(death), death.failed, death.final
    except BaseException as error:
      traceback.print_exc()
      cause, failed, final = f"{type(error).__name__}: {error}", True, False
    with contextlib.suppress(ConnectionError, rpc.RemoteError):
      client.call("lost", name, cause, failed=failed, final=final)
    if not final:
      # Threads of whatever it has loaded end with it, and Ray starts it again.
      os._exit(1)


class RayRun:
  """A run whose processes are Ray's.

  Its coordinator is a thread of this process: the run ends with it.

  Attributes:
    client: a client of the coordinator.
    host: the IP address of this machine in the cluster.
  """

  def __init__(self, plan: "Plan", address: str | None = None):
    """Starts the run.

    Args:
      plan: what to run.
      address: a Ray cluster's, "auto" for that of this machine; None to start
        one for this run alone, on loopback.

    Raises:
      ExperimentError: if there is no such cluster, or it is too small; if the
        coordinator cannot listen here; or if Ray is not installed.
    """
    self._ray = _import_ray(address)
    with interruption.handlers_kept():
      self.host = _connect(self._ray, address)
    try:
      self._start(plan, self.host, alone=address is None)
    except BaseException:
      self._ray.shutdown()
      raise

  def _start(self, plan: "Plan", host: str, *, alone: bool) -> None:
    # Not above: it loads much, and this module is loaded on all machines.
    from acme_qsm.distributed.coordination.run_coordinator import (
      run_coordinator,
    )

    resources = ray_resources.share_out(
      plan, pickle.loads(plan.run).replay_bytes(), _list_machines(self._ray)
    )
    coordinator = dataclasses.replace(plan.coordinator, host=host)
    started: futures.Future[str] = futures.Future()

    def coordinate() -> None:
      try:
        run_coordinator(coordinator, on_start=started.set_result)
      except BaseException as error:
        if started.done():
          raise
        started.set_exception(error)

    self._coordinator = threading.Thread(target=coordinate, name="coordinator")
    self._coordinator.daemon = True
    self._coordinator.start()
    try:
      address = started.result()
    except OSError as error:
      raise ExperimentError(
        f"The run's coordinator cannot listen on {host}: {error}."
      ) from error
    self.client = rpc.Client(address, plan.key)
    self._killed_at: dict[str, float] = {}
    self._processes: dict[str, Any] = {}
    # What they do, by Ray's references to it.
    self._work: dict[Any, str] = {}
    try:
      self._start_processes(plan, address, resources, host if alone else None)
    except BaseException as error:
      # Else it would keep the work directory, and wait for them.
      with contextlib.suppress(ConnectionError, rpc.RemoteError):
        self.client.call("fail", f"its processes cannot be started: {error}")
      raise

  def _start_processes(
    self,
    plan: "Plan",
    coordinator: str,
    resources: Mapping[str, Mapping[str, Any]],
    host: str | None,
  ) -> None:
    for name, options in resources.items():
      handle = self._ray.remote(_Process).options(
        max_restarts=-1,
        max_task_retries=-1,
        # Some is read before the first line of ours.
        runtime_env={"env_vars": process.environment_variables(name)},
        **options,
      )
      self._processes[name] = handle.remote()
      log = plan.log_folder / f"{name}.log" if plan.log_folder else None
      work = self._processes[name].run.remote(
        name,
        plan.run,
        plan.key,
        coordinator,
        host=host,
        log=str(log) if log else None,
      )
      self._work[work] = name

  def tend(self, status: Mapping[str, Any]) -> None:
    """Has Ray start those again that hang, and says which it cannot start.

    Args:
      status: the coordinator's.
    """
    ended, _ = self._ray.wait(
      list(self._work), num_returns=len(self._work), timeout=0
    )
    for work in ended:
      name = self._work[work]
      try:
        self._ray.get(work)
      except self._ray.exceptions.RayError as error:
        if status["nodes"][name]["state"] != GIVEN_UP:
          cause = f"Ray cannot run it: {error}"
          with contextlib.suppress(ConnectionError, rpc.RemoteError):
            self.client.call("lost", name, cause, final=True)
    now = time.monotonic()
    for name, node in status["nodes"].items():
      silent = (
        node["silent_seconds"] > _HANG_SECONDS
        and node["state"] not in ENDED_STATES
      )
      if silent and now - self._killed_at.get(name, 0.0) > 2 * _HANG_SECONDS:
        self._killed_at[name] = now
        self._ray.kill(self._processes[name], no_restart=False)

  def wait(self) -> None:
    """Waits for the processes to end, and ends those that do not."""
    self._coordinator.join(_END_SECONDS)
    self._ray.wait(
      list(self._work),
      num_returns=len(self._work),
      timeout=_END_SECONDS,
    )
    for handle in self._processes.values():
      self._ray.kill(handle)
    self._ray.shutdown()


def _import_ray(address: str | None) -> Any:
  """Imports Ray, with the settings that it needs to reach the cluster."""
  for name, value in _SETTINGS.items():
    os.environ.setdefault(name, value)
  if address is None:
    # Ray's servers listen on all addresses, so they must ask for a token.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Some of what it starts would outlive a process that is killed.
    reaper.start(_MARK)
  try:
    import ray
  except ModuleNotFoundError as error:
    raise ExperimentError(
      "There is no Ray here: in a clone, uv pip install '.[acme,ray]'."
    ) from error
  return ray


def _connect(ray: Any, address: str | None) -> str:
  """Connects to Ray; returns this machine's address there."""
  options = {"log_to_driver": False, "logging_level": "WARNING"}
  if address is None:
    with warnings.catch_warnings():
      # JAX warns of any new process, also of those that are another program.
      warnings.simplefilter("ignore", RuntimeWarning)
      ray.init(address="local", include_dashboard=False, **options)
    return addresses.LOOPBACK
  try:
    if address != "auto":
      # Ray itself would try for minutes.
      where = addresses.split(address)
      with socket.create_connection(where, _CONNECT_SECONDS):
        pass
    ray.init(address=address, **options)
  except (OSError, ValueError, RuntimeError) as error:
    raise ExperimentError(
      f"There is no Ray cluster at {address!r}: {error}"
    ) from error
  return _own_address()


def _own_address() -> str:
  """This machine's address in the cluster."""
  import ray

  return ray.util.get_node_ip_address()


def _list_machines(ray: Any) -> list[dict[str, float]]:
  """The resources of each machine that is alive."""
  return [node["Resources"] for node in ray.nodes() if node["Alive"]]
