"""What a network's file, and the pictures beside it, say of the stanza that would build it.

``facts`` reads the file of any kind, ``entry`` an ONNX graph's first operators, ``checkpoint``
PyTorch's archives without running them, ``samples_seen`` the pictures, and ``settings`` makes of
all that the stanza's variables, each with where it is from, and questions for what nobody said.
"""
