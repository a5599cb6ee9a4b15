"""From a program to the documents and blobs of an archive."""
