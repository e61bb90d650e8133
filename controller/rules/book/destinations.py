"""Whom this stack may call, whatever a client allows.

Two rules hold for every way to dial. If the operator has a list (TRUNKLINE_ALLOWED_CALLEES), only
numbers on it are called. And a number that costs far more than a phone call, or that a test must
not call, is called only if that list names it in full:

- premium-rate and emergency numbers, as Google's libphonenumber has them for each country (the
  package ``phonenumbers``: PREMIUM_RATE in its metadata, and its list of short numbers);
- codes that belong to no country, and are satellites' or billed at rates of their own: ITU-T E.164,
  the list of assigned country codes (:data:`WORLD`).

For example, ``+1900…`` is refused without a list, and under ``+1*`` too.
"""

from __future__ import annotations

from typing import Final

from trunkline.bus.redact import redact_number

#: The setting that an error names.
SETTING: Final = "TRUNKLINE_ALLOWED_CALLEES"
#: Country codes of ITU-T E.164 that belong to no country, and the service behind each.
WORLD: Final = {
    "+870": "a satellite number (Inmarsat)",
    "+878": "a number for personal telecommunications, billed at a rate of its own",
    "+881": "a satellite number (global mobile satellite system)",
    "+882": "an international network's number, often a satellite's",
    "+883": "an international network's number, often a satellite's",
    "+979": "a number of the international premium-rate service",
}


def refusal(number: str, listed: tuple[str, ...] | None) -> str | None:
    """Why this stack does not call the number; None: it does. ``listed``: numbers in full, and
    groups of them that end in ``*``; None: there is no list."""
    if listed is not None and number in listed:
        return None
    shown = redact_number(number)
    costly = _costly(number)
    if costly is not None:
        return (
            f"destination {shown} is {costly}: {SETTING} has to name it in full before this stack "
            "calls it (+* beside it stands for all other numbers)"
        )
    groups = [entry[:-1] for entry in listed or () if entry.endswith("*")]
    if listed is None or number.startswith(tuple(groups)):
        return None
    return (
        f"destination {shown} is not among the {len(listed)} entries of {SETTING}, which hold for "
        "all clients of this stack: add it there"
    )


def _costly(number: str) -> str | None:
    """Why this is no ordinary number. None: it is one, or no list knows it."""
    for code, what in WORLD.items():
        if number.startswith(code):
            return what
    # Imported here, because only a controller that dials needs it: 15 ms and 2 MB.
    import phonenumbers
    from phonenumbers import shortnumberinfo

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None  # of a country that there is not
    if phonenumbers.number_type(parsed) == phonenumbers.PhoneNumberType.PREMIUM_RATE:
        return "a premium-rate number"
    if not phonenumbers.is_valid_number(parsed):
        # Some networks connect whatever begins with the emergency number. No valid number does.
        national = phonenumbers.national_significant_number(parsed)
        # A code's main region comes first. Its others have numbers of their own (999 in parts of
        # +1), which are none when they are dialled from elsewhere with a country code.
        for region in phonenumbers.region_codes_for_country_code(parsed.country_code or 0)[:1]:
            if shortnumberinfo.connects_to_emergency_number(national, region):
                return "an emergency number"
    return None
