"""The commands that look at a board, a file each: nobody pays for what another one imports."""
