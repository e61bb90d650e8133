"""The carrier's signature against Twilio's example and Twilio's own validator."""

from __future__ import annotations

from twilio.request_validator import RequestValidator

from trunkline.carrier_sim.signature import sign

FORM = [
    ("Digits", "1234"),
    ("CallSid", "CA1234567890ABCDE"),
    ("To", "+18005551212"),
    ("Caller", "+14158675309"),
    ("From", "+14158675309"),
]


def test_the_documented_value() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert sign("12345", url, FORM) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert sign("12345", url + "#rc=3&rp=all", FORM) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_blank_and_repeated_fields_as_the_package_has_them() -> None:
    form = {"FromCity": "", "B": "2", "A": "ü"}
    validator = RequestValidator("token")
    assert sign("token", "https://x.example/a", form.items()) == validator.compute_signature(
        "https://x.example/a", form
    )
    repeated = [("A", "2"), ("A", "1"), ("A", "2")]
    assert sign("t", "u", repeated) == sign("t", "u", [("A", "1"), ("A", "2")])
