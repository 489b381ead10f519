"""A run as files: the settings it is started with and the folder it leaves."""
