"""What can be graded by rule: one module per kind of question, free of torch, used by training and evals alike."""
