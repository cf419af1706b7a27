"""Fast reads on arrays and plain numbers; they know nothing of layers or chips. Same bits as the reference."""
