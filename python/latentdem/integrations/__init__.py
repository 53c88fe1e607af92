"""The solver for users of other libraries: one module for each, imported when it is asked for."""
