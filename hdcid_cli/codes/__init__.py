"""What is done with a trained model: checkpoints, codes of clips, TOC."""
