"""The gate: the checks that a version must pass before it becomes champion, run with the code that serves it."""
