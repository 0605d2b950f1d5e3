"""What `smallfry.train` is made of: the optimizer, saves, what mends a run that goes wrong, and several processes."""
