"""What not knowing costs: pairs that are off in one way each, by default and told the truth."""
