"""Tracked ultrasound sweeps, and what a sweep and its probe say together."""
