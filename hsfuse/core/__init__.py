"""What everything stands on: grids, cubes, errors, the package's own facts."""
