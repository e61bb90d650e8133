"""The pods of rendered Kubernetes manifests, as processes of this machine.

Each pod gets an address of its own on the loopback, its containers' very commands, environment and
probes, and directories in place of its volumes. What a cluster does around them is done here as
far as it matters to a call: kubelet's probes, the Service of the gateways (:class:`Balancer`), and
the end of a pod: preStop, SIGTERM, and its grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import selectors
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

import yaml
from e2e.stack import Stack, until

from benchmarks.processes import ROOT
from trunkline.bus.http import Session
from trunkline.bus.launch import ParentPipe, clean_environment, spawn, trunkline_argv

RENDERED: Final = ROOT / "deploy" / "kubernetes" / "rendered.yaml"
#: The directories of a container that it may write, and where its secrets are.
_DIRECTORIES: Final = ("/dev/shm", "/var/lib/trunkline", "/etc/trunkline")  # as in the file
_addresses = itertools.count(2)
#: Every process of tests has a network of its own, because all pods listen at the same ports.
_NETWORK: Final = f"{64 + os.getpid() // 256 % 128}.{os.getpid() % 256}"


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """All objects, by kind and name."""
    found = yaml.safe_load_all(RENDERED.read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


class Cluster:
    """What pods are made from: the manifests, the values of secrets, and where Services lead.
    ``more``: settings that another overlay would have."""

    def __init__(self, stack: Stack, secrets: dict[str, str], more: dict[str, str]) -> None:
        self.stack = stack
        self.secrets = secrets
        self.more = more
        self.objects = manifests()
        self._pipe = ParentPipe()
        #: by a Service's name: the address behind it
        self.services: dict[str, str] = {}
        #: the file of the Secret trunkline-bus-clients
        self.bus_clients = ""
        #: the port of the public URL, on the loopback
        self.public = 0

    def pod(self, deployment: str) -> Pod:
        """One more pod of the Deployment, which has been started."""
        return Pod(self, self.objects["Deployment", deployment])

    def start(
        self, argv: list[str], directory: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """A container's command, with this environment alone; it ends with the stack."""
        log = directory.with_suffix(".log")
        process = spawn(argv, environment, log, self._pipe.read_fd, cwd=directory)
        self.stack.processes.append(process)
        self.stack.logs.append(log)
        return process


class Pod:
    """One pod, which has one container."""

    def __init__(self, cluster: Cluster, deployment: dict[str, Any]) -> None:
        self._cluster = cluster
        self._spec = deployment["spec"]["template"]["spec"]
        (self.container,) = self._spec["containers"]
        n = next(_addresses)
        self.ip = f"127.{_NETWORK}.{n}"
        self.directory = cluster.stack.directory / f"{self.container['name']}-{n}"
        self._made()
        self.environment = self._environment()
        self.process = cluster.start(
            self._argv(self.container["command"]),
            self.directory,
            clean_environment() | self.environment,
        )

    def _made(self) -> None:
        for name in _DIRECTORIES:
            self._here(name).mkdir(parents=True, mode=0o700)
        clients = self._here("/etc/trunkline") / "bus-clients"
        clients.write_text(self._cluster.bus_clients)
        clients.chmod(0o400)

    def _here(self, path: str) -> Path:
        """Where a directory of the container is."""
        return self.directory / path.replace("/", "_").strip("_")

    def _local(self, text: str) -> str:
        """The same text, of this machine."""
        for name in _DIRECTORIES:
            text = text.replace(name, str(self._here(name)))
        for name, address in self._cluster.services.items():
            text = text.replace(name, address)
        return text.replace("0.0.0.0", self.ip)  # a pod has its network alone

    def _environment(self) -> dict[str, str]:
        found = {"POD_IP": self.ip}
        for source in self.container.get("envFrom", ()):
            name = source["configMapRef"]["name"]
            found |= self._cluster.objects["ConfigMap", name]["data"]
        found |= self._cluster.more
        for each in self.container["env"]:
            found[each["name"]] = self._value(each, found)
        return {name: self._local(value) for name, value in found.items()}

    def _value(self, each: dict[str, Any], known: dict[str, str]) -> str:
        if "value" in each:
            return re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], each["value"])
        source = each["valueFrom"]
        if "fieldRef" in source:
            fields = {"status.podIP": self.ip, "spec.nodeName": "node-1"}
            return fields[source["fieldRef"]["fieldPath"]]
        return self._cluster.secrets[source["secretKeyRef"]["key"]]

    def _argv(self, command: list[str]) -> list[str]:
        name, *rest = (self._local(word) for word in command)
        return trunkline_argv(*rest) if name == "trunkline" else [name, *rest]

    # ------------------------------------------------------------------ what kubelet does

    def passes(self, probe: str) -> bool:
        """Whether the probe finds the container well."""
        asked = self.container[probe]
        if "httpGet" in asked:
            ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
            url = f"http://{self.ip}:{ports[asked['httpGet']['port']]}{asked['httpGet']['path']}"
            with Session() as session, contextlib.suppress(OSError):
                return 200 <= session.get(url, timeout=asked["timeoutSeconds"]).status_code < 400
            return False
        return not subprocess.run(
            self._argv(asked["exec"]["command"]), stderr=subprocess.DEVNULL, check=False
        ).returncode

    async def ready(self) -> None:
        """Wait until it has started and is ready."""
        name = self.container["name"]
        await until(lambda: self.passes("startupProbe"), f"{name} starts")
        await until(lambda: self.passes("readinessProbe"), f"{name} is ready")

    async def terminate(self) -> int:
        """The pod is deleted: preStop, SIGTERM, and as much time as it has; its exit status."""
        async with asyncio.timeout(self._spec["terminationGracePeriodSeconds"]):
            hook = self.container.get("lifecycle", {}).get("preStop")
            if hook is not None:
                before = await asyncio.create_subprocess_exec(*self._argv(hook["exec"]["command"]))
                assert await before.wait() == 0
            self.process.terminate()
            return await asyncio.to_thread(self.process.wait)


class Balancer:
    """The Service of the gateways: each connection goes to the next pod that is ready. Connections
    that stand stay where they are. It runs on a thread, since tests ask probes meanwhile."""

    def __init__(self, pods: list[Pod], port: int) -> None:
        self.pods = pods
        self._turns = itertools.count()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                here, _ = self._socket.accept()
                there = socket.create_connection((self._next().ip, 8765))
                self._threads.append(threading.Thread(target=_pass_on, args=(here, there)))
                self._threads[-1].start()

    def _next(self) -> Pod:
        return self.pods[next(self._turns) % len(self.pods)]

    def close(self) -> None:
        """Listen no more, once all calls are over."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive(), "a connection is still there"


def _pass_on(here: socket.socket, there: socket.socket) -> None:
    """Both ways, until both ends have closed, or one has broken."""
    with here, there, contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ, there)
        selector.register(there, selectors.EVENT_READ, here)
        while selector.get_map():
            for key, _ in selector.select():
                piece = key.fileobj.recv(65_536)  # type: ignore[union-attr]  # it is a socket
                if piece:
                    key.data.sendall(piece)
                else:
                    selector.unregister(key.fileobj)
                    key.data.shutdown(socket.SHUT_WR)
