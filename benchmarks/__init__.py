"""Speed, memory and accuracy measurements, each reproducible by one command."""
