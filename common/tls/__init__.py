"""TLS: certificates, and verification of servers."""
