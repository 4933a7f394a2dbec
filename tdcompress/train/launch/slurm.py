"""Runs of a sweep as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config.schema import LauncherConfig
from ...device.files import RunError
from ...results.record import Summary
from ...results.run import Run
from ...tensor.errors import ConfigError
from ..interrupt import StopSignals
from .basic import carried_out
from .job import Job
from .sweep import Sweep

_POLL = 1.0  # seconds between two looks at the jobs' results
_LOOK = 15.0  # seconds between two looks at the queue
_GRACE = 120.0  # seconds that cancelled jobs have for their step and checkpoint


class Task:
    """What submitit pickles and a node calls: the run of ``job``, its lines to stdout.

    If Slurm preempts it or its time is up, submitit calls ``checkpoint`` and queues the answer: the same run again,
    which goes on from its checkpoint.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> Summary | Exception | None:
        """The run's summary, the error because of which there is none, or None where a signal ended it."""
        try:
            return carried_out(self.job, _say)
        except (ConfigError, RuntimeError) as error:
            return RunError(str(error)) if isinstance(error, ConfigError) else RuntimeError(str(error))
        except KeyboardInterrupt as stop:
            _say(str(stop))
            return None

    def checkpoint(self) -> Any:
        """The task to queue in this one's place, as submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def slurm(starts: Sequence[Job], jobs: Sequence[Job], settings: LauncherConfig, sweep: Sweep) -> None:
    """One job array of which ``settings.jobs`` run at once, on nodes as ``settings`` asks for; waits for all of them.

    The ``starts`` are an array of their own, after which, however it ends, the other one begins.

    What a run writes to stdout and stderr is in ``<results_dir>/slurm``. A signal cancels the jobs, which end after
    their step, and raises ``Interrupted``; a second one leaves at once. Raises ``ConfigError`` where submitit or Slurm
    is missing, or Slurm refuses the jobs.
    """
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError("launcher=slurm: the package submitit is missing; pip install 'tdcompress[slurm]'")
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at every look where there is no accounting
    folder = Path(jobs[0].config.results_dir) / "slurm"
    try:
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=settings.requeues)
    except RuntimeError:
        raise ConfigError("launcher=slurm: there is no srun here; use a login node, or launcher=local") from None
    executor.update_parameters(**_resources(settings))
    try:
        submitted = _submitted(executor, starts) if starts else []
        if submitted:
            arrays = {handle.job_id.partition("_")[0]: None for handle in submitted}
            executor.update_parameters(additional_parameters={"dependency": ":".join(["afterany", *arrays])})
        submitted += _submitted(executor, jobs)
    except (FailedSubmissionError, FailedJobError) as error:  # of an array, and of one job
        raise ConfigError(f"launcher=slurm: {' '.join(str(error).split())}") from None
    waiting = dict(zip(submitted, (*starts, *jobs), strict=True))
    for handle, job in waiting.items():
        sweep.say(job, f"Slurm job {handle.job_id}, {handle.paths.stdout}")
    with StopSignals() as stop:
        cancelled, looked = 0.0, time.monotonic()
        lost: set[Any] = set()
        begun: set[Any] = set()
        while waiting and not (cancelled and time.monotonic() - cancelled > _GRACE):
            gone: set[Any] = set()
            for handle in [handle for handle in waiting if handle not in begun and _begun(handle)]:
                begun.add(handle)
                sweep.begin(waiting[handle])
            if time.monotonic() - looked > _LOOK:
                looked, queued = time.monotonic(), _queued()
                missing = {handle for handle in waiting if handle.job_id not in queued}
                gone, lost = missing & lost, missing  # twice: a result may reach a shared folder late
            for handle in [handle for handle in waiting if handle.paths.result_pickle.exists() or handle in gone]:
                job = waiting.pop(handle)
                outcome = _outcome(handle, job)
                sweep.say(job, _told(outcome))
                sweep.end(job, outcome)
            if stop.number is not None and not cancelled:
                cancelled = time.monotonic()
                for handle in waiting:
                    handle.cancel(check=False)
                waiting = {handle: job for handle, job in waiting.items() if _begun(handle)}
            time.sleep(_POLL * bool(waiting))
    if stop.number is not None:
        raise stop.interrupted("sweep interrupted, its jobs are cancelled; the same command goes on")


def _submitted(executor: Any, jobs: Sequence[Job]) -> list[Any]:
    with executor.batch():
        return [executor.submit(Task(job)) for job in jobs]


def _resources(settings: LauncherConfig) -> dict[str, Any]:
    """``settings`` in submitit's words; what is not set is left to the cluster."""
    wanted: dict[str, Any] = {
        "job_name": "tdc",
        "time": settings.minutes,
        "cpus_per_task": settings.cpus,
        "array_parallelism": settings.jobs,
        "partition": settings.partition,
        "account": settings.account,
        "gpus_per_node": settings.gpus or None,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _outcome(handle: Any, job: Job) -> Summary | Exception:
    """What ``Task`` returned for a job that has ended or left the queue, or an error that says why there is nothing."""
    if not handle.paths.result_pickle.exists():
        return RunError(f"ended by Slurm without a result, killed or out of memory; see {handle.paths.stderr}")
    try:
        outcome: Summary | Exception | None = handle.result()
    except Exception as error:  # submitit wraps whatever the node raised
        return RuntimeError(str(error).strip().splitlines()[-1])
    if outcome is None:
        summary = Run(job.directory).summary() or Summary()
        return RunError(f"interrupted after epoch {summary.epochs_done}; the same command goes on")
    return outcome


def _queued() -> set[str]:
    """The ids of this user's jobs that wait or run, as submitit names them: ``12_3``."""
    listed = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i"], capture_output=True, text=True, check=False)
    return set(listed.stdout.split())


def _begun(handle: Any) -> bool:
    """Whether a node has begun with the job, so that it will leave a result even if it is cancelled."""
    return bool(handle.paths.stdout.exists())


def _told(outcome: Summary | Exception) -> str:
    if isinstance(outcome, Exception):
        return str(outcome)
    accuracy = outcome.test_accuracy
    return outcome.status + (f", test accuracy {accuracy:.2%}" if accuracy is not None else "")


def _say(line: str) -> None:
    print(line, flush=True)
