"""The fused kernels for CUDA, in Triton: plan, kernels and launcher. Triton is imported at the first launch."""
