"Package metadata comes from settings.ini; nothing is stated twice."

from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

ini = ConfigParser(delimiters=["="])
ini.read("settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license=cfg["license"].upper(),
    license_files=["LICENSE"],
    url=cfg["git_url"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["fakeface", "fakeface.*"]), "fakeface.bundles", "fakeface.pages"],
    include_package_data=False,
    # shipped detectors and the checker's page travel as packages
    package_dir={"fakeface.bundles": "outputs/models", "fakeface.pages": "nbs"},
    package_data={
        "fakeface": ["py.typed", "static/*", "templates/*"],
        "fakeface.bundles": ["*.md", "*/*"],
        "fakeface.pages": ["check.ipynb"],
    },
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    zip_safe=False,
)
