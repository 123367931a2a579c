"""Exchange with other programs: trained models applied to folders, ONNX files, score maps from elsewhere, archives.

The command line `clgan` is here, too. Imports `runs`, `exhibits` and the core.
"""
