"""The judge of a chaos run. It trusts nobody: it imports nothing of the product, reads the topics, the tables and the provider's own log by
itself (`evidence.py`), and holds them against what was sent (`rules.py`), which takes its rules from what is promised to users."""
