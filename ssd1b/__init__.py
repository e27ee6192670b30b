"""Make and serve SSD-1B-class text-to-image models on a Ray cluster."""

import os

# The libraries below us talk on every import; what a person must know, they raise.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
