"""Objects from files of meshes: reading them, their textures, their inside, and sets of objects for an evaluation."""
