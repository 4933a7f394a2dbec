"""What is true of every format: graph, ranks, initialisation, contraction planning and execution."""
