"""The two tasks, image stylization and frame interpolation: protocols, base modules, shared training code."""
