"""Search spaces, one file each: what may be varied, and how it becomes a network.

A space is a module with two functions of the same arguments:

    build(hp, input_shape, num_classes) -> keras.Model                 compiled, as KerasTuner expects
    operators(hp, input_shape, num_classes) -> tuple[Operator, ...]    the folded graph, without any framework

A space says in ``TAKES`` what kinds of data it is made for (see ``edgeml.kinds``); one that does not takes images.

Ours write ``network(hp, input_shape, num_classes) -> Network`` once and derive both. The default of every
hyper-parameter is its cheapest value, so that the default network is the smallest. Widths are multiples of 8: runtimes
leave their fast paths on others. ``hp`` is a ``keras_tuner.HyperParameters``, or reads like one
(``search.given``, where only the cost is asked).
"""
