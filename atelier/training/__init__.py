"""How it learns: objectives, targets, one loop, exact resume."""
