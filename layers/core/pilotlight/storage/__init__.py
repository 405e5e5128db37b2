"""Object stores, downloads, and the compressed form of files."""
