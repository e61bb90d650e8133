"""Twilio's REST, as the controller uses it: what is asked, what it answers, what is put back."""
