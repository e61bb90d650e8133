"""When the far end speaks and when its turn is over: the speech gate, and the turns that are heard
through it."""
