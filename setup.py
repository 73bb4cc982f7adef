"""Ship the top-level folder conf/ as the package animegen.conf, in editable and built installs alike."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["animegen", "animegen.*"]), "animegen.conf"],
    package_dir={"animegen.conf": "conf"},
    package_data={"animegen": ["py.typed", "**/*.md"], "animegen.conf": ["**/*.yaml"]},
)
