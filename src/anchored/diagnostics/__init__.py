"""What measured FIMs look like, how alike they are, and how many images are enough."""
