"""When the far end speaks and when its turn is over: the speech gate, and what hears through it."""
