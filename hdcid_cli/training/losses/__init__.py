"""One file a loss. Losses know nothing of the training loop."""
