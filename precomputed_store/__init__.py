"""Neuroglancer Precomputed volumes in xarray, zarr and dask."""
