"""The runtimes that a scheme can be deployed on; everything that knows one lies in its folder."""
