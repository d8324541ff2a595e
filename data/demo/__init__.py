"""The embedded default: a small generated world of instructions, the prompts taken from it, and the model trained on it."""
