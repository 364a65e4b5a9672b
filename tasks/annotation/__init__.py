"""What the annotate stage and its commands share: the agent, shards, cost estimate."""
