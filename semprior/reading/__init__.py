"""Reading what others wrote: files and texts -> values of the expected type, or one line that says where they differ.

Images, YAML, JSON, CSV, XML, safetensors, npz, Parquet and names are parsed here and nowhere else. Whatever the input,
a function of this room returns a checked value or raises a `UserError` that names the file and the place in it; it
needs time and memory in proportion to the size of the input, and it opens regular files only.

Imports `errors`.
"""
