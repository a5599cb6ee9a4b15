"""From the documents of an archive to torch's objects."""
