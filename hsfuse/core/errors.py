"""Every error a user can cause, in one tree; the command line turns each into one line and exit code 1.

HsfuseError
├── InputError          a file or array that can't be used: missing, not a raster, no wavelengths, all nodata, ...
│   ├── SrfError        an unknown sensor, a malformed response table, no spectral overlap
│   └── GridError       CRS, ratio, offset or extent of the two images don't fit each other
├── OutputError         output exists, equals an input, disk full
├── ModelError          weights that don't fit the scene, a checkpoint that can't be read
└── SettingError        an option whose value makes no sense with the others
"""


class HsfuseError(Exception):
    """Base of all errors a user can cause; its text says what was found, what was wanted and what to do."""


class InputError(HsfuseError):
    """An input that can't be used."""


class SrfError(InputError):
    """A spectral response that is unknown, malformed, or doesn't overlap the hyperspectral range."""


class GridError(InputError):
    """Two images whose grids don't fit each other."""


class OutputError(HsfuseError):
    """An output that can't be written."""


class ModelError(HsfuseError):
    """Weights that can't be read or don't fit the scene."""


class SettingError(HsfuseError):
    """An option whose value makes no sense."""
