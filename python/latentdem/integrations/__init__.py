"""The solver in the interfaces of other libraries: one module for each, not imported by default."""
