"""Code that several test modules share; README.rst, one folder up, says what to use when."""
