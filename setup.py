"""Builds libfry beside the package; a machine without a C compiler installs without it and computes with numpy."""

from pathlib import Path

from setuptools import Extension, setup

FRY = Path("src/smallfry/engine/fry")

setup(
    ext_modules=[
        Extension(
            "smallfry.engine._fry",
            sorted(str(path) for path in FRY.rglob("*.c")),
            depends=sorted(str(path) for path in FRY.rglob("*.h")),
            # No contraction: products and sums round alike on every machine, where the sources do not say otherwise.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-g0"],
            optional=True,
        )
    ]
)
