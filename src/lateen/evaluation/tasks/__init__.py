"""Every module here is an evaluation task: its name is the file's, its summary the first line."""
