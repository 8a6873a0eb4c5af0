"""What llama-cpp-python's tests import of scipy."""
