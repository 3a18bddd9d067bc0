"""What is done to, and noted of, a run while it runs; ``mmgn.engine`` imports and so registers them."""
