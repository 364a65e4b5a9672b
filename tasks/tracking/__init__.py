"""MLflow: runs, sync to a server, model registry, pyfunc model."""
