"""The whole loop on simulated users: `python -m loadtests.loop.whole`.

plan.py       how large it is, and what is done of it
site.py       the service, the sink and `gpt4rec loop run` as processes
simulated.py  the simulated users, in the order in which they visit
cycles.py     the first model, and the cycles
trial.py      what off-policy evaluation foretells, and the experiment
figures.py    what the log says in the end
__main__.py   the command; start here
"""
