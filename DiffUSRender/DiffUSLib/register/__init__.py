"""What DiffUSRegister does on nodes."""
