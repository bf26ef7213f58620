"""One queue in front of each graph: admission, forecasts of run times, batches."""
