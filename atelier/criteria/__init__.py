"""What the expert says: criteria, judgements, captions, splits."""
