"""The life of one job: attempts on this machine's Docker, until one succeeds or the retry table ends it.

Each job has a thread. A job over several nodes starts its main node first, tells the others where that is, and ends
with it: its exit code is the job's. Which state a child has that Batch stops then, is not documented: by its exit code.
"""

import copy
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.emulator import batch_containers, batch_jobs, batch_roles
from tests.emulator.batch_containers import Task
from tests.emulator.batch_jobs import AttemptEnd, Document

BETWEEN_STATES_S = 0.2  # so that who asks sees each of them; Batch needs minutes for a machine
WAITING_STATES = ("SUBMITTED", "PENDING", "RUNNABLE")  # in which CancelJob still cancels


@dataclass(frozen=True)
class Place:
    """Where jobs of a queue run."""

    queue: str  # its name
    environment: str  # the compute environment's name
    cluster: str  # of ECS
    stop_s: int  # from SIGTERM to SIGKILL, by the setting of the environment's machines


class JobRunner:
    """Runs one job; `nodes` are its children, and `announce` gets each change of a state as an event."""

    def __init__(
        self, job: Document, nodes: list[Document], place: Place, announce: Callable[[Document], None]
    ) -> None:
        self._job, self._nodes, self._place, self._announce = job, nodes, place, announce
        self._lock = threading.Lock()
        self._stop_reason = ""
        self._tasks: list[Task] = []

    def start(self) -> None:
        """Run the job from now on, in a thread."""
        threading.Thread(target=self._run, name=f"batch-{self._job['jobId']}", daemon=True).start()

    def stop(self, reason: str, *, running_too: bool) -> None:
        """End the job for this reason: one that waits at once, a running one by SIGTERM, unless that shall not be."""
        with self._lock:
            if self._job["status"] not in WAITING_STATES and not running_too:
                return
            self._stop_reason = self._stop_reason or reason
            self._job["isTerminated" if running_too else "isCancelled"] = True
            tasks = list(self._tasks)
        for task in tasks:
            threading.Thread(target=batch_containers.stop, args=(task, self._place.stop_s), daemon=True).start()

    def _run(self) -> None:
        with self._scope():
            self._move(self._job, "SUBMITTED")
            for attempt in range(1, self._job["retryStrategy"]["attempts"] + 1):
                self._move_all("RUNNABLE")
                time.sleep(BETWEEN_STATES_S)
                if self._stop_reason:  # before there was anything to stop
                    return self._finish("FAILED", AttemptEnd(self._stop_reason))
                end = self._run_attempt(attempt)
                if end.exit_code == 0 and not end.is_final:
                    return self._finish("SUCCEEDED", end)
                if batch_jobs.decide_retry(self._job["retryStrategy"], attempt, end) == "EXIT":
                    return self._finish("FAILED", end)
        return None

    def _scope(self) -> AbstractContextManager[None]:
        return batch_roles.account_scope()

    def _finish(self, status: str, end: AttemptEnd) -> None:
        self._job["stoppedAt"] = now_ms()
        self._move(self._job, status, end.status_reason)

    def _move_all(self, status: str) -> None:
        for job in (self._job, *self._nodes):
            for name in ("startedAt", "stoppedAt"):
                job.pop(name, None)
            self._move(job, status)

    def _move(self, job: Document, status: str, reason: str = "") -> None:
        """Set a state, and announce it."""
        with self._lock:
            job["status"] = status
            job.pop("statusReason", None)
            if reason:
                job["statusReason"] = reason
        self._announce(copy.deepcopy(job))

    def _run_attempt(self, attempt: int) -> AttemptEnd:
        """Run all nodes once, or the job's only container; return the end of the main one."""
        jobs = self._nodes or [self._job]
        main = int(self._job.get("nodeProperties", {}).get("mainNode", 0)) if self._nodes else 0
        order = [jobs[main], *(job for job in jobs if job is not jobs[main])]
        tasks = list[Task]()
        try:
            for job in order:
                tasks.append(task := self._build_task(job, attempt, tasks))
                if end := self._start(task):
                    return self._end_attempt(tasks[0], end if job is order[0] else self._stop_rest(tasks, end))
            return self._follow(tasks)
        finally:
            for task in tasks:
                batch_containers.remove(task)

    def _build_task(self, job: Document, attempt: int, others: list[Task]) -> Task:
        variables = batch_containers.build_variables(job, self._place.environment, self._place.queue, attempt)
        if self._nodes:
            properties, node = self._job["nodeProperties"], job["nodeDetails"]["nodeIndex"]
            address = others[0].address if others else ""
            main = properties["mainNode"]
            variables |= batch_jobs.build_node_environment(node, properties["numNodes"], main, address)
        task_id, definition = uuid.uuid4().hex, job["jobDefinition"].rpartition("/")[2].partition(":")[0]
        stream = batch_jobs.name_log_stream(job["container"], definition, task_id)
        return Task(job, task_id, variables, stream)

    def _start(self, task: Task) -> AttemptEnd | None:
        """Start one container, unless the job was stopped; return its end if it does not run."""
        self._move_with_main(task, "STARTING")
        with self._lock:
            if self._stop_reason:
                return AttemptEnd(self._stop_reason, is_final=True)
            if end := batch_containers.start(task):
                return end
            self._tasks.append(task)
            task.job["container"]["logStreamName"] = task.log_stream
            task.job["container"]["taskArn"] = self._name_task(task)
            task.job["startedAt"] = self._job["startedAt"] = now_ms()
        self._move_with_main(task, "RUNNING")
        return None

    def _move_with_main(self, task: Task, status: str) -> None:
        """Set the state of a task's job, and with that of the main node the whole job's."""
        self._move(task.job, status)
        if task.job.get("nodeDetails", {}).get("isMainNode"):
            self._move(self._job, status)

    def _follow(self, tasks: list[Task]) -> AttemptEnd:
        """Wait for the main node, stop the others after it, and note how each has ended."""
        limit = self._job["timeout"].get("attemptDurationSeconds")
        others = [threading.Thread(target=self._follow_other, args=(task,), daemon=True) for task in tasks[1:]]
        for thread in others:
            thread.start()
        end = batch_containers.follow(tasks[0], limit, self._place.stop_s)
        for task in tasks[1:]:
            batch_containers.stop(task, self._place.stop_s)
        for thread in others:
            thread.join()
        return self._end_attempt(tasks[0], end)

    def _follow_other(self, task: Task) -> None:
        """Follow a node that is not the main one."""
        with self._scope():
            end = batch_containers.follow(task, None, self._place.stop_s)
            self._note_attempt(task.job, task, end)
            self._move(task.job, "FAILED" if end.exit_code else "SUCCEEDED", end.status_reason)

    def _stop_rest(self, tasks: list[Task], end: AttemptEnd) -> AttemptEnd:
        """Stop the nodes that run already, since another one did not start."""
        for task in tasks:
            batch_containers.stop(task, self._place.stop_s)
        return end

    def _end_attempt(self, task: Task, end: AttemptEnd) -> AttemptEnd:
        """Note the attempt in the main node and in the job, with the reason that a caller gave for its end."""
        with self._lock:
            self._tasks.clear()
            if self._stop_reason:
                end = AttemptEnd(self._stop_reason, end.reason, end.exit_code, is_final=True)
        self._note_attempt(task.job, task, end)
        if task.job is not self._job:
            self._note_attempt(self._job, task, end)
            self._move(task.job, "SUCCEEDED" if end.exit_code == 0 else "FAILED", end.status_reason)
        return end

    def _note_attempt(self, job: Document, task: Task, end: AttemptEnd) -> None:
        """Add an attempt to a job. That of a job over several nodes has no log: it is its main node's."""
        container: Document = {"networkInterfaces": []}
        if end.exit_code is not None:
            container["exitCode"] = end.exit_code
        if end.reason:
            container["reason"] = end.reason
        noted = {"container": container, "stoppedAt": now_ms(), "statusReason": end.status_reason}
        if "startedAt" in job:
            noted["startedAt"] = job["startedAt"]
        with self._lock:
            if "container" in job:
                for name in ("exitCode", "reason"):
                    job["container"].pop(name, None)
                job["container"].update(container)
                if task.container is not None:
                    container |= {"logStreamName": task.log_stream, "taskArn": self._name_task(task)}
            job["attempts"].append(noted)
            job["stoppedAt"] = noted["stoppedAt"]

    def _name_task(self, task: Task) -> str:
        return batch_roles.build_arn("ecs", f"task/{self._place.cluster}/{task.id}")


def now_ms() -> int:
    """Now, as Batch counts: milliseconds since 1970."""
    return int(time.time() * 1000)
