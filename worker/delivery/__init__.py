"""Results of finished runs that a site keeps."""
