"""`make try`: the same flow on a machine that can make no board, as processes, gone when it ends."""
