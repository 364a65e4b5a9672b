"""GPUs, remote stages, Prefect set-up, local services and the doctor."""
