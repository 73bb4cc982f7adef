"""Ship the top-level folder conf/ as the package animegen.conf, in editable and built installs alike."""

from setuptools import find_namespace_packages, setup

GROUPS = find_namespace_packages("conf", exclude=["__pycache__", "*.__pycache__"])

setup(
    packages=[
        *find_namespace_packages(include=["animegen", "animegen.*"], exclude=["*.__pycache__"]),
        *("animegen.conf", *(f"animegen.conf.{group}" for group in GROUPS)),
    ],
    package_dir={"animegen.conf": "conf"},
    package_data={"animegen": ["py.typed", "**/*.md", "weights/*/*.ckpt"], "animegen.conf": ["**/*.yaml"]},
)
