"""The contract that keeps tree heads: its Vyper source, what vyper made of it, and what is said to it."""
