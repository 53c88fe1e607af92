"""Objects from files of meshes, and sets of objects for an evaluation."""
