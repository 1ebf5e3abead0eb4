"""The published features and checkpoints, and how they become ours."""
