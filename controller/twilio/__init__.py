"""Twilio's REST, as the controller uses it: calls, numbers, and the overrides that it puts back."""
