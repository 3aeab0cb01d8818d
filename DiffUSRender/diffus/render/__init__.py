"""The renderer: echoes and scatterers along the rays, beam and pulse, display, scan conversion."""
