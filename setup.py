"""Builds libfry beside the package; a machine without a C compiler installs without it and uses PyTorch instead."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "smallfry.engine._fry",
            ["src/smallfry/engine/fry/score.c"],
            depends=["src/smallfry/engine/fry/fry.h", "src/smallfry/engine/fry/kernels.h"],
            extra_compile_args=["-std=c11", "-O3"],
            libraries=["m"],
            export_symbols=["fry_supported", "fry_open", "fry_close", "fry_score"],
            optional=True,
        )
    ]
)
