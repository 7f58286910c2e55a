"""Names of a package that are imported when first used."""

import importlib
import sys


def attach(package, homes):
    """Makes the `__getattr__` and the `__dir__` of a package (PEP 562).

    Args:
        package: str. The package's `__name__`.
        homes: dict from a public name to the module of the package that holds it; a
            module that is public itself has the value None.

    Returns:
        Two functions, to be assigned to `__getattr__` and `__dir__`.
    """

    def getattribute(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        value = importlib.import_module(f"{package}.{home or name}")
        if home:
            value = getattr(value, name)
        # The next look-up does not come here.
        setattr(sys.modules[package], name, value)
        return value

    return getattribute, lambda: sorted(homes)
