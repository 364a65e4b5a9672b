"""DVC as the flows use it: stages, plan, runner, locks, completion markers, overrides."""
