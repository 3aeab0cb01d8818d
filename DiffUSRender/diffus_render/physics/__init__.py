"""What sound does along the rays: echoes, scatterers, and the beam that blurs them."""
