"""What `benchmarks/train_speed.py` measures: one module a peer, each in a process of its own (`peers.worker`)."""
