"""How good lists are: metrics, baselines, intervals, reports."""
