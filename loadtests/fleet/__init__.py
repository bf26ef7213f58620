"""Many shops, many replicas and more than one machine, measured; rows in `results/fleet.json`."""
