"""The order in which services start and stop, and how long each may take."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Protocol

from local import environment, explorer, processes, services
from local.airflow import COMPONENTS, SPARK_POOL, SPARK_POOL_DESCRIPTION, USER, spark_pool_slots
from local.airflow_api import AirflowApi
from local.errors import StackError
from local.paths import Layout
from local.services import Services
from local.state import State
from local.supervise import FAILED, Supervisor
from local.waiting import tail, wait_until


class Report(Protocol):
    """Is told what has been done, when it was begun, and where the result is."""

    def __call__(self, what: str, begun: float, detail: str = "") -> None: ...


class Conductor:
    def __init__(self, layout: Layout, state: State, known: Services, client: dict[str, str], report: Report) -> None:
        self._layout, self._state, self._known, self._client, self._report = layout, state, known, client, report
        self._supervisor = Supervisor.of(layout, state)

    def start(self, names: Collection[str]) -> None:
        """Start services, those that do not need each other at the same time, and return when all are healthy."""
        components = [name for name in names if name in COMPONENTS]
        with ThreadPoolExecutor() as pool:
            stores = {name: pool.submit(self._start_store, name) for name in names if name in services.STORES}
            reading = pool.submit(self._start_explorer, stores.values()) if explorer.NAME in names else None
            if components:
                if "metadata" in stores:
                    stores["metadata"].result()
                self._migrate()
            for store in stores.values():
                store.result()
            if components:
                self._start_airflow(components)
            if reading:
                reading.result()

    def manage(self, wanted: Collection[str]) -> list[str]:
        """Have a process manager with the current settings.

        Return the services to start: ``wanted``, and those that ran and were stopped because their settings changed.
        """
        supervisor = self._supervisor
        digest = hashlib.sha256(json.dumps(self._client, sort_keys=True).encode()).hexdigest()
        interrupted: list[str] = []
        supervisor.write(self._known.programs())
        if supervisor.is_alive() and self._state.environment != digest:
            interrupted = supervisor.running()
            self.stop()
        if supervisor.is_alive():
            interrupted = supervisor.reload()
        else:
            supervisor.launch(environment.for_processes(self._layout.stack, self._client))
            self._state.environment = digest
            self._state.save(self._layout.state)
        return [name for name in self._known.names if name in wanted or name in interrupted]

    def stop(self) -> None:
        """Stop everything, the stores last, so that no task loses its database while it works."""
        begun = monotonic()
        supervisor = self._supervisor
        if scheduler := supervisor.infos()["scheduler"].pid:
            # The scheduler waits for its tasks. They are ended while the API server can still note how they ended.
            supervisor.ask_to_stop(["scheduler", "triggerer", "dag-processor"])
            processes.end(processes.grandchildren(scheduler))
        supervisor.stop(["scheduler", "triggerer", "dag-processor"])
        supervisor.stop(["api-server", explorer.NAME])
        managed = [info.pid for info in supervisor.infos().values() if info.pid]
        left = processes.unmanaged(self._layout.stack, managed)
        processes.end([process for process in left if process.pid != supervisor.pid()])
        supervisor.stop(services.STORES)
        supervisor.shut_down()
        self._report("stopped", begun)

    def _start_store(self, name: str) -> None:
        """Start a service that keeps data, and make what its clients expect to find in it."""
        begun = monotonic()
        store = self._known.store(name)
        if self._supervisor.info(name).pid is None:
            store.prepare()
            self._supervisor.start(name)
        self._await([name], store.check, timeout_s=90)
        self._await([name], store.provision, timeout_s=60)
        self._report(name, begun, self._known.addresses()[name])

    def _start_explorer(self, stores: Collection[Future[None]]) -> None:
        """Start the explorer once the stores are there; Airflow, which takes longer, starts beside it."""
        for store in stores:
            store.result()
        begun = monotonic()
        self._supervisor.start(explorer.NAME)
        # Seconds on an idle machine. Airflow, which migrates its metadata the first time, leaves none idle.
        self._await([explorer.NAME], self._known.explorer.check, timeout_s=120)
        self._report(explorer.NAME, begun, self._known.explorer.url)

    def _migrate(self) -> None:
        begun = monotonic()
        state, airflow = self._state, self._known.airflow
        airflow.prepare()
        whole = environment.for_processes(self._layout.stack, self._client)
        migrated = airflow.migrate(whole, state.airflow_migrated, self._layout.log("airflow-migrate"))
        if migrated != state.airflow_migrated:
            state.airflow_migrated = migrated
            state.save(self._layout.state)
            self._report("airflow migration", begun, migrated)

    def _start_airflow(self, components: Collection[str]) -> None:
        begun = monotonic()
        supervisor, airflow = self._supervisor, self._known.airflow
        for name in components:
            supervisor.start(name)

        def check() -> None:
            infos = supervisor.infos()
            # Health is asked of the API server; while it is stopped on purpose, running has to do.
            if infos["api-server"].pid is not None:
                airflow.check({name: infos[name].started for name in components})

        self._await(components, check, timeout_s=180)
        if "api-server" in components:
            with AirflowApi(airflow.url, USER, self._state.secrets.airflow_admin) as api:
                slots = spark_pool_slots(len(os.sched_getaffinity(0)))
                api.ensure_pool(SPARK_POOL, slots, SPARK_POOL_DESCRIPTION)
        self._report("airflow", begun, airflow.url)

    def _await(self, names: Collection[str], check: Callable[[], None], *, timeout_s: float) -> None:
        """Wait until ``check`` passes, and give up at once when one of the services dies."""
        supervisor = self._supervisor
        first = {name: supervisor.info(name).pid for name in names}

        def probe() -> None:
            infos = supervisor.infos()
            for name in names:
                info = infos[name]
                if info.state in FAILED or info.pid != first[name]:
                    log = self._layout.log(name)
                    # It would be started again and again.
                    supervisor.stop([name])
                    reason = f" ({info.error})" if info.error else ""
                    raise StackError(f"{name} ended right after its start{reason}, see {log}", log_tail=tail(log))
            check()

        wait_until(probe, what=" ".join(names), timeout_s=timeout_s, log=self._layout.log(next(iter(names))))
