"""What DiffUSRender does on nodes."""
