"""How reconcilers run: triggers, queues, the writer. No business logic."""
