"""Which host a pod runs on: pure filters and scores, one binding transaction."""
