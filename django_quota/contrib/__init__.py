"""Support for other packages. Each module requires the package it is named after."""
