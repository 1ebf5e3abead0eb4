"""What codes are good for: annotations, the probe, metrics, retrieval, code analysis, segmentation."""
