"""Toggle, breach, overload, stress and the runbook, each measured on service processes."""
