"""The Python entry points: `deblur`, `restore`, and folders of photographs."""
