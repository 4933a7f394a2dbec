"""What the benchmarks measure this package against: the code that people write by hand."""
