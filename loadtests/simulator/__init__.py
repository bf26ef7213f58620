"""Users whose tastes are known: they look at lists over HTTP, click, tire and change. What a loop learns has a truth.

Modules, from the bottom: `world` (what users like), `people` (what they do with a list), `past` (what they did before
the service began), `groups` (the same as data with the users' groups), `visits` (lists and events over HTTP).
"""
