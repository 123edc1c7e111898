"""Fitting one network: reproducible, by any optimizer, stopped when it diverges."""

import keras
import numpy as np
import pytest

from edgeml import train

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (96, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def fitted(optimizer="adam", rate=1e-2, seed=3, epochs=2, x=X, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dropout(0.2), L.Dense(2, "softmax")])
    train.compile_for(model, optimizer, rate, **{k: options.pop(k) for k in ("cosine_steps",) if k in options})
    history = train.fit(
        model, (x[:64], Y[:64]), (x[64:], Y[64:]), epochs=epochs, batch_size=16, seed=seed, num_classes=2, **options
    )
    return model, history


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    (a, first), (b, second), (c, _) = fitted(), fitted(), fitted(seed=4)
    assert first == second
    assert set(first[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for one, same, other in zip(a.get_weights(), b.get_weights(), c.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_learns(optimizer):
    history = fitted(optimizer, epochs=8)[1]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_accuracy"] > 0.7


def test_cosine_ends_at_zero():
    model, _ = fitted(cosine_steps=train.steps(64, 16, 2))
    assert float(model.optimizer.learning_rate) < 1e-9


def test_steps_round_up():
    assert train.steps(65, 16, 3) == 15


def test_a_diverging_network_stops_without_a_word(capfd):
    seen = []
    history = fitted(epochs=5, rate=1e30, on_epoch=lambda epoch, metrics: seen.append(epoch))[1]
    assert len(history) == len(seen) == 1
    assert not np.isfinite(history[0]["val_loss"])
    assert capfd.readouterr() == ("", "")


def test_augmentation_sees_each_training_sample_once_an_epoch_and_no_other():
    seen = []

    def augment(batch):
        seen.append(batch.copy())
        return batch

    fitted(epochs=2, augment=augment)
    first, second = np.concatenate(seen[-8:-4]), np.concatenate(seen[-4:])  # before them Keras looks at two batches
    for epoch in (first, second):
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(X[:64], axis=0))
    assert not np.array_equal(first, second)


def test_every_network_has_a_seed_of_its_own_that_keras_takes():
    seeds = [train.network_seed(s, t, finalist=f) for s in (0, 1, 2**31 - 2) for t in range(50) for f in (False, True)]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        keras.utils.set_random_seed(seed)  # NumPy refuses 2**32 and above
