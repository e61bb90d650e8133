"""Limits, repetitions, the baseline and the page in a run of pytest with real calls."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from talk import clip

from trunkline.bus.launch import trunkline_argv

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.e2e, pytest.mark.measures]

SUITE = """
import asyncio, pytest
from pathlib import Path
from trunkline.bus import wav

async def ask(line, carrier_sim):
    here = Path(__file__).parent
    answer = f"wav:{here / 'answer.wav'},greets,when_silent=0.5,repeat"
    carrier_sim.add_callee("+14155557790", answer)
    question = wav.read(here / "question.wav").tobytes()
    call = await line.place_call(
        "+14155557790", attach_stream="a-leg", callee_speaks_first=True
    )
    for _ in range(3):
        await call.send_audio(question)
        await asyncio.sleep(1.7)
    await call.hang_up()

@pytest.mark.phone_limits(latency_max=3.0)
@pytest.mark.phone_line(allowed_callees=["+14155557790"])
async def test_quick(phone_line, carrier_sim):
    await ask(phone_line, carrier_sim)

@pytest.mark.phone_limits(latency_p95=0.1)
@pytest.mark.phone_line(allowed_callees=["+14155557790"])
async def test_slow(phone_line, carrier_sim):
    await ask(phone_line, carrier_sim)

@pytest.mark.phone_limits(talk_over=1.0)
@pytest.mark.parametrize("n", [-1, 1])
def test_nobody_calls(n):
    pass

def test_another():
    pass
"""


def make_suite(pytester: pytest.Pytester) -> None:
    """The suite, whose agent answers each question with a few words."""
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n")
    pytester.makepyfile(test_agent=SUITE)
    clip(pytester.path / "question.wav", 0.6, "austen-0930")
    clip(pytester.path / "answer.wav", 0.8)


@pytest.mark.usefixtures("joins_a_stack", "another_run")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_with_gates(pytester: pytest.Pytester, workers: str) -> None:
    make_suite(pytester)
    # test_quick was much quicker once.
    before = {"test_agent.py::test_quick": {"latency": [0.2] * 9, "time_to_yield": []}}
    Path("phone.json").write_text(json.dumps(before))
    result = pytester.runpytest_subprocess(
        *("--phone-sim", "-n", workers, "--phone-repeat", "2", "--phone-baseline", "phone.json"),
        *("--phone-report", "out", "--junitxml", "junit.xml"),
        timeout=90,
    )
    # Without a phone fixture and a limit a test is run once.
    result.assert_outcomes(passed=3, failed=6)
    said = result.stdout.str()
    assert "latency_p95 is " in said
    assert "over 0.1 s (the largest of 3: a percentile needs 20)" in said
    assert "no call came up, so there is nothing to judge" in said
    rates = re.findall(r"trunkline: test_agent.py::(\S+): passed (\d) of (\d)", said)
    assert sorted(rates) == [
        ("test_nobody_calls[-1]", "0", "2"),
        ("test_nobody_calls[1]", "0", "2"),
        ("test_quick", "2", "2"),
        ("test_slow", "0", "2"),
    ]
    assert "test_quick: latency is slower by " in said
    kept = json.loads(Path("phone.json").read_text())
    assert kept == before, "a baseline stays, and no failed test is added to it"
    slow = "test_agent.py::test_slow: not added to the baseline: it passed 0 of 2 times"
    assert f"trunkline: {slow}" in said
    page = Path("out/index.html").read_text()
    titles = re.findall(r"<h2>test_agent.py::(\w+)", page)
    assert sorted(titles[:6]) == ["test_nobody_calls"] * 4 + ["test_slow"] * 2
    assert titles[6:] == ["test_quick"] * 2, "what failed comes first"
    assert page.count("data:audio/wav") == page.count("<polygon") // 2 == 4
    links = re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|https?://[^\s\"<]+", page)
    assert links == [], "it opens without a network"
    assert sorted(path.name for path in Path("out").iterdir()) == ["index.html"]
    assert 'name="phone_latency_max"' in Path("junit.xml").read_text()
    assert "Play it again" not in page, "the stack keeps no cassettes"


FAILING = """
import asyncio, pytest

@pytest.mark.phone_line(allowed_callees=["+14155557777"])
async def test_talk(phone_line, fails):
    call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
    await call.send_audio(bytes(48_000))
    await call.hang_up()
    assert not fails, "as planted"

def pytest_generate_tests(metafunc):
    if "fails" in metafunc.fixturenames:
        metafunc.parametrize("fails", [False, True])

@pytest.mark.phone_line(allowed_callees=["+14155557779"])
async def test_busy(phone_line):
    await phone_line.place_call("+14155557779", attach_stream="a-leg")
"""


@pytest.mark.usefixtures("another_run")
def test_a_failed_test_keeps_its_cassette_and_the_command_plays_it_again(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n")
    pytester.makepyfile(test_agent=FAILING)
    argv = ("--phone-sim", "--phone-seed", "7", "--phone-report", "out", "-n", "1")
    result = pytester.runpytest_subprocess(*argv, timeout=90)
    result.assert_outcomes(passed=1, failed=2)
    (kept,) = Path("out").glob("*.cassette")
    command = f"trunkline replay out/{kept.name}"
    told = "trunkline: test_agent.py::test_talk[[]True]: "
    result.stdout.fnmatch_lines([f"{told}{command}   (--phone-sim --phone-seed 7)"])
    result.stdout.fnmatch_lines(["trunkline: *tests trunkline, and not the agent*--play ours*"])
    page = Path("out/index.html").read_text()
    assert command in page
    listed, busy = json.loads(Path("out/failed.json").read_text())
    assert listed == {
        "test": "test_agent.py::test_talk[True]",
        "call": kept.stem,
        "seed": 7,
        "command": command,
    }
    assert busy == {"test": "test_agent.py::test_busy", "call": None, "seed": 7, "command": None}
    result.stdout.fnmatch_lines(
        ["trunkline: test_agent.py::test_busy: it has no cassette   (--phone-sim --phone-seed 7)"]
    )
    assert "<h2>test_agent.py::test_busy</h2>" in page and "CallFailedError: " in page
    again = trunkline_argv(*command.split()[1:])
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "the answers are the same" in done.stdout


@pytest.mark.usefixtures("joins_a_stack", "another_run")
def test_a_slower_run_fails_though_every_test_passes(pytester: pytest.Pytester) -> None:
    make_suite(pytester)
    argv = ("--phone-sim", "-k", "test_quick", "--phone-repeat", "2", "--phone-baseline")
    argv = (*argv, "phone.json")
    first = pytester.runpytest_subprocess(*argv, timeout=90)
    first.assert_outcomes(passed=2)
    assert first.ret == 0, "it has nothing to be compared with"
    kept = json.loads(Path("phone.json").read_text())
    kept["test_agent.py::test_quick"]["latency"] = [0.2] * 9
    Path("phone.json").write_text(json.dumps(kept))
    second = pytester.runpytest_subprocess(*argv, timeout=90)
    second.assert_outcomes(passed=2)
    assert second.ret == 1
    assert "test_quick: latency is slower by " in second.stdout.str()
