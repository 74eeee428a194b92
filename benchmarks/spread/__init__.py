"""What Dask brings and costs: speed-up, overhead, memory of a worker, the graph of the largest scene, and a soak."""
