"""Scene layer of DiffUSRegister: MRML nodes in, MRML nodes out.

Imports slicer and vtk; only `widget.py` knows Qt. Neither torch nor an engine is imported before it is used.
"""
