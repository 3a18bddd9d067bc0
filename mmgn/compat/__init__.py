"""What the stale parts of the OpenMMLab ecosystem need to run on a current torch."""
