"""`gpt4rec loop run`: from what was shown to the next model, again and again.

schedule.py      which cycle is due
journal.py       what each cycle has done so far, one file a cycle
locks.py         one loop at a time, and no step of one that died beside it
gpt4rec.py       runs the other commands
service.py       what the loop asks of the service, by HTTP
world.py         what the steps work with
preparing.py     the steps before anybody sees the candidate: sink, data, train, export, gate
introducing.py   the steps after: publish, canary, promote
cycle.py         the steps in order; start here
retention.py     deletes what no cycle needs any more
loop.py          cycles on their schedule
process.py       the process: signals, metrics, exit code
telling.py       the journal in words
command.py       `gpt4rec loop run` and `gpt4rec loop status`
"""
