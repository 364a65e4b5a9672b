"""Certificates: how far a judge can be trusted, criterion by criterion, and what follows."""
