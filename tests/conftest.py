"""Settings that must stand before any test loads llama.cpp."""

import os

# Spinning OpenMP threads stop each other when tests share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
