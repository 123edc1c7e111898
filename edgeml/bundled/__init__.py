"""Scripts that are copied as they are into every bundle.

They run where edgeml is not installed: Python 3.9 or later, numpy and one runtime. So each is one file, imports nothing
of edgeml, and repeats the few lines that open a model file (a test holds both copies equal).
"""
