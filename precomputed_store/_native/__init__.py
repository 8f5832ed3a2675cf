"""Kernels in C, compiled when the package is installed; without them numpy and libraries serve.

They are plain shared libraries, called through `ctypes`, which gives up the interpreter lock.
"""
