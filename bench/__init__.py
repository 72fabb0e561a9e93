"""Speed, as ratios measured in one run: `make bench`, or `python -m bench classify|call|chain|ledger`."""
