"""The EM loop: E-step, data weight, schedules, passes, checkpoints."""
