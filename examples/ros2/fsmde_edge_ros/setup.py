"""The ament_python package; fsmde-edge itself comes by pip."""

from setuptools import setup

setup(
    name="fsmde_edge_ros",
    version="0.1.0",
    packages=["fsmde_edge_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/fsmde_edge_ros"]),
        ("share/fsmde_edge_ros", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    license="Apache-2.0",
    entry_points={"console_scripts": ["depth = fsmde_edge_ros.node:main"]},
)
