"""``trunkline doctor --live`` as the user meets it: its questions, lines and exit statuses."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from trunkline.bus.errors import CarrierError, NumberNotFoundError, SettingsError, TrunklineError
from trunkline.bus.launch import trunkline_argv
from trunkline.bus.locks import FileLock
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.cli.main import cli
from trunkline.controller.journal.state_dir import StackRunsError
from trunkline.controller.restore_command import restore_command
from trunkline.controller.twilio import override
from trunkline.controller.twilio.seal import Seal
from trunkline.live import command as live_command
from trunkline.live.run import Outcome, Plan, run
from trunkline.live.verdicts import LIVE, Verdicts

from .bench import NUMBER, PRIOR, TOKEN, carrier, live, settings_for


def found(*contradicted: str, unknown: tuple[str, ...] = ()) -> Verdicts:
    verdicts = Verdicts()
    for name in LIVE:
        if name not in unknown:
            verdicts.decide(name, name not in contradicted, "seen")
    return verdicts


class Runs:
    """Stands in for the run, and takes note of it."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.plans: list[Plan] = []

    async def __call__(self, settings: Settings, plan: Plan, say: Any) -> Outcome:
        self.plans.append(plan)
        return self.outcome


def settings(**given: Any) -> Settings:
    return load(env_file=None, account_sid="AC" + "5" * 32, auth_token=TOKEN, **given)


async def status_of(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, **options: Any
) -> tuple[int, Runs]:
    runs = Runs(outcome)
    monkeypatch.setattr(live_command, "run", runs)
    chosen = {"yes": True, "as_json": False} | options
    return await live_command.command(settings(), NUMBER, None, **chosen), runs


async def test_all_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, runs = await status_of(monkeypatch, Outcome(found()))
    assert status == 0 and runs.plans == [Plan(NUMBER, NUMBER)]
    shown = capsys.readouterr()
    assert [line.split()[1] for line in shown.out.splitlines()[:-1]] == list(LIVE)
    assert shown.out.splitlines()[-1] == "ok   the number is as it was before"
    assert "about 10 cents" in shown.err and "trunkline doctor:" not in shown.err


async def test_what_is_contradicted_is_named_with_what_it_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = await status_of(monkeypatch, Outcome(found("silence-is-sent")))
    assert status == 1
    shown = capsys.readouterr()
    assert "FAIL silence-is-sent" in shown.out
    assert f"it means: {LIVE['silence-is-sent']}" in shown.out
    assert shown.err.splitlines()[-1] == (
        "trunkline doctor: what trunkline believes of Twilio does not hold: silence-is-sent"
    )


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (Outcome(found(unknown=("digits-arrive",))), 1, "whether these hold: digits-arrive"),
        (Outcome(found(), CarrierError("Twilio could not place a call")), 1, "could not place"),
        (Outcome(found("silence-is-sent"), back=False), 3, "run `trunkline restore`"),
    ],
)
async def test_one_line_on_stderr_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Outcome,
    status: int,
    said: str,
) -> None:
    assert (await status_of(monkeypatch, outcome))[0] == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("trunkline doctor: ") and said in last


async def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(found("reject-is-busy", unknown=("digits-arrive",)))
    assert (await status_of(monkeypatch, outcome, as_json=True))[0] == 1
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["beliefs"]) == list(LIVE) and shown["number_is_back"] is True
    verdicts = {name: belief["verdict"] for name, belief in shown["beliefs"].items()}
    assert verdicts.pop("reject-is-busy") == "contradicted"
    assert verdicts.pop("digits-arrive") == "unknown"
    assert set(verdicts.values()) == {"holds"}


async def test_it_asks_and_no_is_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[bool] = []

    def confirm(text: str, *, default: bool, err: bool) -> bool:
        asked.append(default)
        return default

    monkeypatch.setattr(click, "confirm", confirm)
    status, runs = await status_of(monkeypatch, Outcome(found()), yes=False)
    assert (status, asked, runs.plans) == (1, [False], [])
    assert "nothing was done" in capsys.readouterr().err


async def test_without_a_terminal_it_spends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(SettingsError, match="add --yes"):
        await status_of(monkeypatch, Outcome(found()), yes=False)


async def test_the_number_is_the_only_one_of_the_settings_unless_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = Runs(Outcome(found()))
    monkeypatch.setattr(live_command, "run", runs)
    one = settings(numbers=NUMBER)
    assert await live_command.command(one, None, "+14155550000", yes=True, as_json=False) == 0
    assert runs.plans == [Plan(NUMBER, "+14155550000")]
    with pytest.raises(click.UsageError, match="--live needs --number"):
        await live_command.command(settings(), None, None, yes=True, as_json=False)


def test_help_and_options_that_go_with_live_only() -> None:
    shown = CliRunner().invoke(cli, ["doctor", "--help"])
    assert "trunkline doctor --live --number +14155551234" in shown.output
    wrong = CliRunner().invoke(cli, ["doctor", "--yes"])
    assert wrong.exit_code == 2 and "go with --live" in wrong.output


# What stands in a run's way, before it spends anything


async def refused(directory: Path, sim: Any, settings: Settings) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        await run(settings, Plan(NUMBER, NUMBER), lambda text: None)
    assert sim.number_writes == [] and sim.calls == {}
    return caught.value


async def test_a_running_stack_is_told_to_end_first(tmp_path: Path) -> None:
    async with carrier() as sim:
        chosen = settings_for(tmp_path, sim)
        lock = FileLock(chosen.state_dir / "lock", "trunkline controller (pid 1)")
        error = await refused(tmp_path, sim, chosen)
        lock.release()
    assert isinstance(error, StackRunsError) and "trunkline controller (pid 1)" in str(error)


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with carrier() as sim:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            error = await refused(tmp_path, sim, settings_for(tmp_path, sim, http_port=port))
    assert f"127.0.0.1:{port} cannot be had" in str(error)


async def test_a_public_url_that_leads_elsewhere_is_shown_without_its_password(
    tmp_path: Path,
) -> None:
    async with carrier() as sim:
        elsewhere = sim.base_url.replace("//", "//me:pa55@")
        chosen = settings_for(tmp_path, sim, public_url=elsewhere)
        error = await refused(tmp_path, sim, chosen)
    leads = f"does not lead to 127.0.0.1:{chosen.http_port} (HTTP 401)"
    assert f"{sim.base_url.replace('//', '//me:***@')} {leads}" in str(error)


async def test_what_stands_in_the_way_is_shown_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the proxy that the request went through, and the listener's address as a URL has it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with carrier() as sim:
        chosen = settings_for(
            tmp_path, sim, public_url="http://me:pa55@line.example.com", http_host="::1"
        )
        error = await refused(tmp_path, sim, chosen)
    assert str(error) == (
        "TRUNKLINE_PUBLIC_URL=http://me:***@line.example.com does not lead to "
        f"[::1]:{chosen.http_port} (Connection refused through the proxy http://127.0.0.1:9 "
        "(HTTP_PROXY)): start its tunnel or proxy, or let --tunnel open one"
    )


async def test_a_number_that_is_not_the_accounts(tmp_path: Path) -> None:
    async with carrier() as sim:
        sim.numbers.clear()
        error = await refused(tmp_path, sim, settings_for(tmp_path, sim))
    assert isinstance(error, NumberNotFoundError)


# What happens in the midst of one


async def test_a_number_that_may_not_call_itself(tmp_path: Path) -> None:
    async with carrier() as sim:
        sim.add_fault("rest", "status", method="POST", path="/Calls.json", status=400)
        outcome = await live(tmp_path, sim)
        assert sim.numbers[NUMBER].voice_url == PRIOR
    assert "--from" in str(outcome.error) and outcome.back


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_it_with_the_number_as_it_was(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Of a terminal, of CI, of a terminal that is closed; a second one changes nothing."""
    async with carrier() as sim:
        process = await _started(sim, settings_for(tmp_path, sim))
        process.send_signal(number)
        process.send_signal(number)
        async with asyncio.timeout(4.0):
            _, err = await process.communicate()
        assert process.returncode == 1, err
        assert err.decode().splitlines()[-1] == (
            f"trunkline doctor: interrupted; {NUMBER} is as it was before"
        )
        assert sim.numbers[NUMBER].voice_url == PRIOR
        assert all(not call.live for call in sim.calls.values())


@pytest.mark.e2e
async def test_a_signal_while_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with carrier() as sim:
        chosen = settings_for(tmp_path, sim)
        process = await _started(sim, chosen)
        sim.add_fault("rest", "status", method="POST", path="/IncomingPhoneNumbers", status=503)
        process.terminate()
        async with asyncio.timeout(5.0):
            _, err = await process.communicate()
        assert process.returncode == 3, err
        assert err.decode().splitlines()[-1] == (
            f"trunkline doctor: interrupted; {NUMBER} may not be put back yet; run `trunkline "
            "restore`"
        )
        sim.faults.clear()
        # Whether a write without an answer lands late is watched for a minute, on a fake clock, in
        # tests/controller/test_uncertain.py.
        monkeypatch.setattr(override, "UNCERTAIN_SECONDS", 2.0)
        status, _ = await restore_command(chosen, dry_run=False, account=False, force=False)
        assert (status, sim.numbers[NUMBER].voice_url) == (0, PRIOR)


async def _doctor(chosen: Settings, *options: str) -> asyncio.subprocess.Process:
    """``trunkline doctor --live`` with these settings and no others."""
    return await asyncio.create_subprocess_exec(
        *trunkline_argv("doctor", "--live", "--number", NUMBER, "--yes", *options),
        env=_environment(chosen),
        cwd=chosen.state_path.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _started(sim: CarrierSim, chosen: Settings) -> asyncio.subprocess.Process:
    """A run whose first stream is up."""
    process = await _doctor(chosen)
    await sim.wait_until(lambda: any(s.live for s in sim.streams.values()), 30.0)
    return process


@pytest.mark.e2e
async def test_a_run_that_is_killed_is_undone_by_restore(tmp_path: Path) -> None:
    async with carrier() as sim:
        chosen = settings_for(tmp_path, sim)
        process = await _doctor(chosen)
        await sim.wait_until(lambda: len(sim.number_writes) == 2, 30.0)
        process.kill()
        await process.communicate()
        assert Seal.read(sim.numbers[NUMBER].voice_url) is not None
        status, lines = await restore_command(chosen, dry_run=False, account=False, force=False)
        assert status == 0 and "put back to" in lines[0]
        number = sim.numbers[NUMBER]
        assert (number.voice_url, number.voice_fallback_url) == (PRIOR, "")


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(settings.state_dir.parent),
        "TWILIO_ACCOUNT_SID": settings.account_sid,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TRUNKLINE_PUBLIC_URL": str(settings.public_url),
        "TRUNKLINE_HTTP_PORT": str(settings.http_port),
        "TRUNKLINE_TWILIO_API_URL": str(settings.twilio_api_url),
        "TRUNKLINE_BUS": settings.bus,
        "TRUNKLINE_STATE_DIR": str(settings.state_dir),
    }
