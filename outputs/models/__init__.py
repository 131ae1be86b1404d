"Detectors that ship: importlib.resources.files('fakeface.bundles') finds them in a checkout and in a wheel."
