"""What operators see: the console's snapshots, recent traffic, and the workers beside this one."""
