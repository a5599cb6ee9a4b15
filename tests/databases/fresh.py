"""`python -m tests.databases.fresh`: programs of torch and ours, saved here, read in a process that made none of them.

The reader has the file, and beside it what the program said, as texts. It imports what registers the custom operators
of the suites, and nothing of the models.
"""

if __name__ == "__main__":  # a reader imports this module under another name, and must not import the suites
    from tests.databases.surviving import main

    main(__doc__)
