"""Scene layer of DiffUS: MRML nodes in, MRML nodes out.

Imports slicer and vtk; only panel files know Qt. Neither torch nor the engine is imported before it is used.
"""
