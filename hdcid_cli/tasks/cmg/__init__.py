"""Cross-modal generalisation: tasks, protocols, the probe and its scores."""
