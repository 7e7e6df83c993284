"""Drills: one part of the running local stack is broken on purpose, and what happens is compared with the promise."""
