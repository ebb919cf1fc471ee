"""Makes `rooms` importable from every folder of tests."""
