"""Scene layer of DiffUSRender: MRML nodes in, MRML nodes out.

Imports slicer and vtk; only `widget.py` knows Qt. Neither torch nor the engine is imported before it is used.
"""
