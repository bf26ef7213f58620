"""The promotion gate, which says whether a candidate may replace the champion.

questions.py     the newest hold-out, and the questions of new users
lists.py         the lists of an artefact for these questions
measures.py      quality, calibration, overlap, cold start
latency.py       both artefacts timed in turns
limits.py        what counts as worse, and the verdict
report.py        the report, for people and as JSON
command.py       `gpt4rec gate`
"""
