"""The files of deploy/: their commands are the product's, and what they name is there.

Nothing here is built or started by an engine. tools/check_deploy.py has linters read the files.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.processes import ROOT
from trunkline.bus.launch import trunkline_argv

from .stack import Stack, until

DEPLOY = ROOT / "deploy"


def health_check(stack: Stack) -> int:
    """The exit status of the container's health check, at this stack's port."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", "")
    (argv,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert "127.0.0.1:8765/" in argv
    python, *rest = json.loads(argv.replace("8765", str(stack.public)))
    return subprocess.run([python, *rest], stderr=subprocess.DEVNULL).returncode


async def test_the_containers_health_check_tells_whether_sound_moves(
    new_stack: Callable[..., Stack],
) -> None:
    stack = new_stack()
    assert health_check(stack) != 0, "nobody listens"
    stack.up(1, 1)
    await until(lambda: health_check(stack) == 0, "the stack is well")


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda x: x.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    (command,) = re.findall(
        r"^ExecStart=/opt/trunkline/bin/trunkline (.*)$", unit.read_text(), re.M
    )
    done = subprocess.run(trunkline_argv(*command.split(), "--help"), capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_compose_file_mounts_what_is_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert list(services) == ["trunkline", "tunnel", "prometheus", "grafana"]
    mounted = [volume for each in services.values() for volume in each.get("volumes", ())]
    local = [volume.partition(":")[0] for volume in mounted if volume.startswith(".")]
    assert len(local) == 3
    assert all((DEPLOY / path).is_dir() for path in local)
    build = services["trunkline"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    # Prometheus reads the controller's default port, and Grafana reads Prometheus.
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["127.0.0.1:8766"]}]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert sources["datasources"][0]["url"] == "http://127.0.0.1:9090"
