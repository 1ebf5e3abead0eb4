"""What the codes mean (Liu et al. 2021, section 4.4), and where in a clip they occur."""
