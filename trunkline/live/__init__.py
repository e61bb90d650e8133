"""``trunkline doctor --live``: real calls that try what trunkline believes of Twilio."""
