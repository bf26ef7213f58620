"""What every room may use: errors, settings, metrics, logs, deadlines, small helpers."""
