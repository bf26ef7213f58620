"""The order of a list, learned from what was shown: how far people look, what a click depends on, what it is worth.

impressions.py      drawn lists as arrays: start here
position_bias.py    looks at each position, from the items that the draw might have put at several
click_model.py      clicks given looks: scores, items, what stands above, and whether a click ends the visit
learning.py         both in turn, and the order model that follows
order_prior.py      what a language model says of an order; language_model.py is one in a local folder
policy_gradient.py  another order, by policy gradient on the propensities of the log
generator_objectives.py  DPO and GRPO for the generator itself; measured, and trained with by no command
logged_orders.py    the drawn lists of a log as impressions, and the reordered list as a policy to judge
deciding.py         whether lists in the new order earn more, by more than chance
"""
