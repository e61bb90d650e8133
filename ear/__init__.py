"""What a test of a voice agent is judged by, measured from the sound of both sides of a call."""
