"""Weights: load, tune, sample; runs in child processes.

Two settings must be in the environment before torch is first imported, so they stand here. Waiting threads sleep instead of
spinning: on a machine shared with other work, spinning made a small model ten times slower. Tokenizers do not start threads of
their own: they would warn, or hang, in a process that forks later.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
