"""A board seen from outside the flow: its state, its numbers, one record followed, what it is made of."""
