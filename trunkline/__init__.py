"""One shared phone line for tests of voice agents."""
