"""What accuracy costs: every effort and method of `fuse` as whole commands, against the truth, in one run."""
