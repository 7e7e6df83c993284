"""The smoke run: each row of its table is a test that drives a running stack, named by its `stack.json`."""
