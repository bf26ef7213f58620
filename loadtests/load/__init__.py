"""Open-loop load: arrivals, senders, replay of a log, capacity."""
