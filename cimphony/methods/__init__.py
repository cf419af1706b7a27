"""Co-design methods, one file each: they change a model so that a chip runs it better."""
