"""What the evaluation stages share: candidates, generation, scoring, results."""
