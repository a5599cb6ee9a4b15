"""What an archive says: typed documents, their codec, the error tree. No I/O, never torch."""
