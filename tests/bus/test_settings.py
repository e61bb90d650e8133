"""Settings: defaults, sources, and one clear line for what is wrong."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from trunkline.bus import messages as m
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import SettingsError
from trunkline.bus.locks import FileLock, LockHeldError
from trunkline.bus.redact import is_e164, mask_url, mask_urls, redact_number
from trunkline.bus.settings import FIELDS, env_name, load


def test_defaults_need_no_environment() -> None:
    settings = load(env_file=None)
    assert settings.http_port == 8765
    assert settings.console_port == 8766
    assert settings.lead_ms == 60
    assert settings.bus.startswith("ipc:///")
    assert settings.validate_signature and settings.fallback_to_prior


def test_given_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("TRUNKLINE_HTTP_PORT=1\nTRUNKLINE_CONSOLE_PORT=2\nTRUNKLINE_LEAD_MS=80\n")
    monkeypatch.setenv("TRUNKLINE_CONSOLE_PORT", "3")
    monkeypatch.setenv("TRUNKLINE_LEAD_MS", "100")
    settings = load(env_file=env_file, lead_ms=120)
    assert (settings.http_port, settings.console_port, settings.lead_ms) == (1, 3, 120)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "TRUNKLINE_HTTP_PORT",
            "http",
            "='http': expected a port, from 0 to 65535",
        ),
        ("TRUNKLINE_HTTP_PORT", "70000", "='70000': expected a port, from 0 to 65535"),
        (
            "TRUNKLINE_PUBLIC_URL",
            "line.example.com",
            "='line.example.com': expected a base URL such as https://line.example.com",
        ),
        (
            "TRUNKLINE_PUBLIC_URL",
            "https://me:secret@line.example.com/?a=b",
            "='https://***@line.example.com/?a=b': a base URL has no query and no fragment",
        ),
        (
            "TRUNKLINE_PUBLIC_URL",
            "https://line.example.com:port",
            "='https://line.example.com:port': unreadable as a URL: Port could not be cast to "
            "integer value as 'port'",
        ),
        (
            "TRUNKLINE_PUBLIC_URL",
            "https://line.example .com",
            "='https://line.example .com': a URL has no blanks and no line's end in it",
        ),
        ("TRUNKLINE_BUS", "foo", "='foo': expected ipc:///directory or tcp://host:port"),
        ("TRUNKLINE_BUS", "udp://x", "='udp://x': expected ipc:///directory or tcp://host:port"),
        (
            "TRUNKLINE_BUS",
            "ipc://relative",
            "='ipc://relative': an ipc address is ipc:// and an absolute directory, for instance "
            "ipc:///run/user/1000/trunkline",
        ),
        (
            "TRUNKLINE_BUS",
            "tcp://host",
            "='tcp://host': expected ipc:///directory or tcp://host:port",
        ),
        (
            "TRUNKLINE_BUS",
            "tcp://::1:7000",
            "='tcp://::1:7000': an IPv6 address stands in brackets, as in tcp://[::1]:7000",
        ),
        (
            "TRUNKLINE_BUS",
            "ipc:///" + "x" * 120,
            f"='ipc:///{'x' * 120}': the directory's path is too long for a socket "
            f"(at most {84 if sys.platform == 'darwin' else 88} bytes)",
        ),
        (
            "TRUNKLINE_NUMBERS",
            "+14155551234,0800",
            "='+14155551234,0800': '0800' is no E.164 number (for instance +14155551234)",
        ),
        (
            "TRUNKLINE_HTTP_HOST",
            "http://[::1]",
            "='http://[::1]': expected a name or an address to listen on, such as 127.0.0.1 or ::1",
        ),
        (
            "TWILIO_REGION",
            "ie1.evil.example/",
            "='ie1.evil.example/': expected one of Twilio's names, such as ie1 (region), dublin "
            "(edge)",
        ),
        ("TRUNKLINE_LEAD_MS", "5", "='5': expected whole milliseconds, from 20 to 1000"),
        ("TRUNKLINE_LOG_FORMAT", "xml", "='xml': expected text or json"),
        ("TRUNKLINE_CALLS_PER_SECOND", "0", "='0': expected a number above 0, and 1000 at most"),
        (
            "TRUNKLINE_CALLS_PER_SECOND",
            "1000.5",
            "='1000.5': expected a number above 0, and 1000 at most",
        ),
        (
            "TRUNKLINE_VALIDATE_SIGNATURE",
            "perhaps",
            "='perhaps': expected 1 or 0",
        ),
    ],
)
@pytest.mark.parametrize("given", ["environment", "file", "option"])
def test_a_wrong_value_is_named_once_in_one_line(
    name: str, value: str, says: str, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here stands the whole line."""
    env_file = tmp_path / ".env"
    options = {}
    if given == "environment":
        monkeypatch.setenv(name, value)
    elif given == "file":
        env_file.write_text(f"{name}='{value}'\n")
    else:
        (field,) = (f for f in FIELDS if env_name(f) == name)
        options[field] = value
    with pytest.raises(SettingsError) as caught:
        load(env_file=env_file, **options)
    assert str(caught.value) == name + says


@pytest.mark.parametrize(
    ("name", "given", "field", "meant"),
    [
        ("TWILIO_ACCOUNT_SID", " AC1 \n", "account_sid", "AC1"),
        ("TRUNKLINE_PUBLIC_URL", "\thttps://x.example/ ", "public_url", "https://x.example"),
        ("TRUNKLINE_HTTP_HOST", " [::1] ", "http_host", "::1"),
        ("TRUNKLINE_HTTP_HOST", "LocalHost", "http_host", "localhost"),
        ("TRUNKLINE_BUS", " ipc:///run/bus/ ", "bus", "ipc:///run/bus"),
        ("TRUNKLINE_BUS", "TCP://Host:7000", "bus", "tcp://host:7000"),
        ("TRUNKLINE_BUS", "tcp://[::1]:7000", "bus", "tcp://[::1]:7000"),
        ("TRUNKLINE_STATE_DIR", " /var/lib/x ", "state_dir", Path("/var/lib/x")),
        ("TRUNKLINE_LOG_FORMAT", "json\r", "log_format", "json"),
        ("TRUNKLINE_VALIDATE_SIGNATURE", " 0 ", "validate_signature", False),
        ("TRUNKLINE_HTTP_PORT", "  ", "http_port", 8765),
        ("TRUNKLINE_CALLS_PER_SECOND", " 1000 ", "calls_per_second", 1000.0),
        ("TWILIO_REGION", " IE1 ", "region", "ie1"),
        ("TWILIO_EDGE", "Dublin", "edge", "dublin"),
        ("TWILIO_EDGE", "", "edge", None),
    ],
)
def test_text_is_stripped(
    name: str, given: str, field: str, meant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, given)
    assert getattr(load(env_file=None), field) == meant
    monkeypatch.delenv(name)
    assert getattr(load(env_file=None, **{field: given}), field) == meant


def test_a_token_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", " t0ken\n")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN_SECONDARY", "\u00a0other ")
    settings = load(env_file=None)
    assert settings.require("auth_token") == "t0ken"
    assert settings.require("auth_token_secondary") == "other"


def test_what_nobody_sees_is_stripped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web page's zero-width blanks, and a byte order mark."""
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "\u200bt0ken\ufeff")
    monkeypatch.setenv("TRUNKLINE_PUBLIC_URL", "\ufeff https://line.example.com\u200b")
    settings = load(env_file=None)
    assert settings.require("auth_token") == "t0ken"
    assert settings.public_url == "https://line.example.com"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TWILIO_ACCOUNT_SID", "AC\u200b1", "='AC\\u200b1': it has the character U+200B in it"),
        ("TWILIO_AUTH_TOKEN", "sec\u2026ret", ": it has the character U+2026 in it"),
        ("TWILIO_AUTH_TOKEN_SECONDARY", "sec\nret", ": it has the character U+000A in it"),
        (
            "TRUNKLINE_PUBLIC_URL",
            "https://line\u200b.example.com",
            "='https://line\\u200b.example.com': a URL has no invisible characters in it",
        ),
    ],
)
def test_what_nobody_sees_is_named_within_a_value(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests could not even be written with it: HTTP's headers have no such characters."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(env_file=None)
    assert str(caught.value).startswith(name + says)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("HTTPS://Line.Example.com", "https://line.example.com"),
        ("https://LINE.example.com:8443/Base/", "https://line.example.com:8443/Base"),
        ("https://Me:PassWord@Line.Example.com/A", "https://Me:PassWord@line.example.com/A"),
        ("http://[2001:DB8::1]:80", "http://[2001:db8::1]:80"),
        ("http://[::1]", "http://[::1]"),
        ("http://[fe80::1%25Eth0]:9", "http://[fe80::1%25Eth0]:9"),
        ("https://line.example.com:", "https://line.example.com"),
    ],
)
def test_urls_are_rebuilt_from_their_parts(given: str, meant: str) -> None:
    """Scheme and host in lower case, and nothing else changed."""
    assert load(env_file=None, public_url=given).public_url == meant
    assert load(env_file=None, twilio_api_url=given).twilio_api_url == meant


def test_a_blank_in_the_environment_does_not_hide_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("TWILIO_ACCOUNT_SID=AC1\ntrunkline_http_port = 7\n")
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", " ")
    settings = load(env_file=tmp_path / ".env")
    assert (settings.account_sid, settings.http_port) == ("AC1", 7)
    assert {"account_sid", "http_port"} == settings.given


def test_a_process_that_is_kept_running_reads_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper gave it all settings; the file may have been edited since."""
    (tmp_path / ".env").write_text("TWILIO_AUTH_TOKEN=secret\nTRUNKLINE_HTTP_PORT=7\n")
    monkeypatch.setenv("TRUNKLINE_LEAD_MS", "80")
    monkeypatch.setenv("TRUNKLINE_KEEPER_FD", "9")
    settings = load(env_file=tmp_path / ".env")
    assert settings.given == {"lead_ms"} and settings.lead_ms == 80


def test_region_and_edge_come_from_the_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TWILIO_REGION=ie1\nTWILIO_EDGE=dublin\n")
    settings = load(env_file=tmp_path / ".env")
    assert (settings.region, settings.edge) == ("ie1", "dublin")


def test_only_who_needs_the_state_directory_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def unknown(uid: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    settings = load(env_file=None)
    assert settings.address.directory is not None and settings.address.directory.is_absolute()
    with pytest.raises(SettingsError) as caught:
        _ = settings.state_path
    assert str(caught.value) == (
        f"TRUNKLINE_STATE_DIR is not set, and this user (uid {os.geteuid()}) has no home directory "
        "for its default: set it to a directory that outlives the stack (the journal of numbers to "
        "be put back lies there), or set HOME"
    )
    assert load(env_file=None, state_dir="/srv/state").state_path == Path("/srv/state")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert settings.state_path.is_relative_to("/home/somebody")


def test_a_missing_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN is not set"):
        load(env_file=None).require("auth_token")


def test_what_can_be_done_without_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"; make one up$"):
        load(env_file=None).require("account_sid", "; make one up")
    with pytest.raises(SettingsError, match="`trunkline up --tunnel cloudflared` finds one"):
        load(env_file=None).require("public_url")


def test_credentials_that_are_swapped_are_told_and_not_shown(tmp_path: Path) -> None:
    token, sid = "5" * 32, "AC" + "a" * 32
    (tmp_path / ".env").write_text(f"TWILIO_ACCOUNT_SID={token}\nTWILIO_AUTH_TOKEN={sid}\n")
    with pytest.raises(SettingsError, match="swap the two") as refused:
        load(env_file=tmp_path / ".env")
    assert token not in str(refused.value)


def test_the_sid_of_an_api_key_is_not_an_accounts() -> None:
    with pytest.raises(SettingsError, match=r"TWILIO_ACCOUNT_SID.*API key.*take the Account SID"):
        load(env_file=None, account_sid="SK" + "a" * 32)


@pytest.mark.parametrize("sid", ["XX", "AC", "account", "AC1 AC2", "AC1/Calls", "AC1?x", "a1" * 16])
def test_what_cannot_be_an_accounts_sid_is_refused(sid: str) -> None:
    with pytest.raises(SettingsError, match=r"^TWILIO_ACCOUNT_SID.*: this is no Account SID") as no:
        load(env_file=None, account_sid=sid)
    assert (sid in str(no.value)) == sid.startswith("AC"), "what else it is may be the token"


def test_the_stand_in_carrier_may_have_short_ones() -> None:
    assert load(env_file=None, account_sid="AC_test1").account_sid == "AC_test1"


def test_whoever_stands_in_the_wrong_directory_is_told_where_env_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=f"there is none in {tmp_path}; `trunkline init`"):
        load().require("auth_token")
    (tmp_path / ".env").write_text("TWILIO_AUTH_TOKEN=\n")
    with pytest.raises(SettingsError, match=f"{tmp_path}/.env does not have it"):
        load().require("auth_token")


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "very-secret")
    settings = load(env_file=None)
    assert "very-secret" not in repr(settings)
    assert settings.require("auth_token") == "very-secret"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://me:pa55@x.example/?a=b", "https://***@x.example/?a=b"),
        ("me:pa55@x.example", "***@x.example"),
        ("https://me:pa55@[x.example", "https://***@[x.example"),
        # What ends the part with host and password stands in the password itself.
        ("https://me:pa55/pa55@x.example", "https://***@x.example"),
        ("https://me:pa55?pa55@x.example:8443/a", "https://***@x.example:8443/a"),
        ("https://me:pa55#pa55@x.example", "https://***@x.example"),
        ("https://me:55/pa55@x.example", "https://***@x.example"),
        ("https://me:pa55 pa55@x.example", "https://***@x.example"),
    ],
)
def test_a_password_in_a_wrong_url_is_not_shown(
    given: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_PUBLIC_URL", given)
    with pytest.raises(SettingsError) as caught:
        load(env_file=None)
    assert str(caught.value).startswith(f"TRUNKLINE_PUBLIC_URL={shown!r}: ")
    assert "pa55" not in str(caught.value)


def test_passwords_in_urls_are_in_no_repr() -> None:
    url = "https://me:pa55@x.example"
    settings = load(env_file=None, public_url=url, twilio_api_url=url)
    assert settings.public_url == url and "pa55" not in repr(settings)
    opened = m.SessionOpened(session="s", number="n", number_sid="N", account="A", public_url=url)
    assert "public_url='https://me:***@x.example'" in repr(opened)
    assert repr(m.Done()) == "Done()"


def test_the_tokens_of_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(env_file=None).auth_tokens == ()
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "new")
    assert load(env_file=None).auth_tokens == ("new",)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN_SECONDARY", "old")
    assert load(env_file=None).auth_tokens == ("new", "old")
    assert load(env_file=None, auth_token_secondary="new").auth_tokens == ("new",)


def test_numbers_are_split_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_NUMBERS", "+14155551234, +442071838750")
    assert load(env_file=None).numbers == ("+14155551234", "+442071838750")


def test_worker_endpoints_are_never_used_twice() -> None:
    address = BusAddress.parse("ipc:///tmp/t")
    assert address.control == "ipc:///tmp/t/control"
    assert len({address.worker() for _ in range(50)}) == 50
    assert BusAddress.parse("tcp://127.0.0.1:7000").control == "tcp://127.0.0.1:7000"
    six = BusAddress.parse("tcp://[::1]:7000")
    assert (six.host, six.control, six.worker()) == ("::1", "tcp://[::1]:7000", "tcp://[::1]:*")
    with pytest.raises(SettingsError, match=r"^TRUNKLINE_BUS='foo': expected ipc:///directory"):
        BusAddress.parse("foo")


def test_a_worker_listens_at_its_own_machines_address_and_not_at_the_controllers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trunkline.bus.endpoints.own_address", lambda host, port: "192.0.2.7")
    assert BusAddress.parse("tcp://controller.example:7000").worker() == "tcp://192.0.2.7:*"

    def nowhere(host: str, port: int) -> str:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("trunkline.bus.endpoints.own_address", nowhere)
    with pytest.raises(SettingsError, match=r"no way leads there: Network is unreachable$"):
        BusAddress.parse("tcp://192.0.2.1:7000").worker()


def test_the_machine_has_a_name_of_its_own_or_the_one_that_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = load(env_file=None).host
    assert here and load(env_file=None).host == here
    monkeypatch.setattr("trunkline.bus.hosts._BOOT_ID", tmp_path / "none")
    monkeypatch.setattr("platform.node", lambda: "Anna's laptop")
    assert load(env_file=None).host == "Anna-s-laptop"
    monkeypatch.setenv("TRUNKLINE_HOST", "node-3.example")
    assert load(env_file=None).host == "node-3.example"
    monkeypatch.setenv("TRUNKLINE_HOST", "node 3")
    with pytest.raises(SettingsError, match=r"^TRUNKLINE_HOST='node 3': expected a name of"):
        load(env_file=None)


def test_a_bus_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "bus"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(SettingsError, match="chmod 700"):
        BusAddress.parse(f"ipc://{open_to_all}").make_directory()
    BusAddress.parse(f"ipc://{tmp_path}/fresh/bus").make_directory()
    assert (tmp_path / "fresh/bus").stat().st_mode & 0o777 == 0o700


def test_a_bus_directory_that_another_user_could_replace_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made /tmp/trunkline-UID-… before us could put a bus of their own into our place."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    address = BusAddress.parse(f"ipc://{theirs}/bus")
    address.make_directory()
    me = os.geteuid()
    tmp_path.chmod(0o1777)
    address.make_directory()  # it is ours
    if me == 0:
        os.chown(theirs, 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    for refuses in (address.make_directory, address.check_directory):
        with pytest.raises(SettingsError) as caught:
            refuses()
        said = str(caught.value)
        assert said.startswith(f"TRUNKLINE_BUS='ipc://{theirs}/bus': ")
        assert said.endswith(
            f" belongs to another user (uid {4711 if me == 0 else me}), who could put another "
            f"directory into the place of {theirs}/bus: name a directory of yours"
        )


def test_a_bus_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made: Not a directory"):
        BusAddress.parse(f"ipc://{tmp_path}/file/bus").make_directory()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    first = FileLock(tmp_path / "lock", "stack one, pid 7")
    with pytest.raises(LockHeldError, match="stack one, pid 7"):
        FileLock(tmp_path / "lock", "stack two")
    first.release()
    FileLock(tmp_path / "lock", "stack two").release()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("+14155551234", True),
        ("+1415555123412345", False),
        ("14155551234", False),
        ("+04155551234", False),
        ("+14155551234\n", False),
        (" +14155551234", False),
        ("+١٤١٥٥٥٥١٢٣٤", False),
        ("+123456", False),
    ],
)
def test_e164(text: str, right: bool) -> None:
    assert is_e164(text) is right


def test_what_may_be_shown() -> None:
    assert redact_number("+14155551234") == "***1234"
    assert redact_number("+14") == "***"
    assert redact_number(None) == "***"
    assert mask_url("https://me:pass@x.example/v?a=1") == "https://me:***@x.example/v?a=1"
    assert mask_url("https://x.example/v") == "https://x.example/v"
    assert mask_url("https://[broken@x") == "<unreadable URL>"
    text = "Url is not valid: https://me:pa:55@x.example/v?a=b@c, wss://you@y.example, a:b@c"
    assert mask_urls(text) == text.replace("pa:55", "***")
