"""One queue in front of each graph: admission, forecasts of what runs take, batches."""
