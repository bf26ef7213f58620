"""`gpt4rec loop sink`: the streams of lists and events into the files of the log, each entry once."""
