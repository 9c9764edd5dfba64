"""The release: distributions are built, and the wheel is tested as a user installs it."""
