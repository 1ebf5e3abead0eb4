"""What a run minimises and how it learns: losses, trainer, pretraining."""
