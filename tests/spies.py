"""Keras callbacks that child processes can import, and that leave what they saw in a file."""

import keras


class Notes(keras.callbacks.Callback):
    """Write a line per epoch: which copy of the callback, its epoch, the learning rate."""

    def __init__(self, path):
        super().__init__()
        self.path, self.epochs = str(path), 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        with open(self.path, "a", encoding="utf-8") as notes:
            notes.write(f"{self.epochs} {epoch} {float(self.model.optimizer.learning_rate):.6g}\n")
