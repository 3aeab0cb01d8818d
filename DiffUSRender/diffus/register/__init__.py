"""Registration of tracked ultrasound to MRI or CT, with a verdict."""
